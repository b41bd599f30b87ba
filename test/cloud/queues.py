"""Storage queues: put, get, peek, update and delete messages; XML, as the service speaks it.

    /queue/{queue}/messages            POST puts, GET gets (peekonly=true looks only), DELETE clears
    /queue/{queue}/messages/{id}       PUT changes visibility, DELETE deletes; both with ?popreceipt=

A token for https://storage.azure.com/ is wanted when the setting queue_auth is "bearer".
Messages that services of this cloud send (callbacks, events) come through put().
"""

import base64
import re
import time
import urllib.parse
import uuid
import xml.etree.ElementTree as xml
from xml.sax.saxutils import escape

from entra import bearer
from server import Refusal, Response

ROUTES = [(method, re.compile(r"/([a-z0-9-]{3,63})" + pattern + "$"), "queue." + operation, handler)
          for method, pattern, operation, handler in (
              ("POST", r"/messages", "put", "put_message"), ("GET", r"/messages", "get", "get_messages"),
              ("DELETE", r"/messages", "clear", "clear_messages"),
              ("PUT", r"/messages/([^/]+)", "update", "update_message"),
              ("DELETE", r"/messages/([^/]+)", "delete", "delete_message"))]


class Message:
    def __init__(self, text):
        self.id = str(uuid.uuid4())
        self.text = text
        self.inserted = time.time()
        self.visible = self.inserted
        self.dequeued = 0
        self.receipt = None


class Queues:
    def __init__(self, settings, ledger, entra):
        self.settings = settings
        self.ledger = ledger
        self.entra = entra
        self.queues = {}

    def put(self, queue, text, encoded=False):
        """A message of ours; base64 as most senders do it."""
        if encoded:
            text = base64.b64encode(text.encode()).decode()
        message = Message(text)
        self.queues.setdefault(queue, []).append(message)
        return message

    def describe(self):
        return {name: [{"id": one.id, "text": one.text, "dequeued": one.dequeued} for one in messages]
                for name, messages in self.queues.items()}

    def route(self, request, path):
        for method, pattern, operation, handler in ROUTES:
            found = pattern.match(path)
            if found and method == request.method:
                facts = {"pipeline": found[1]}
                if found.lastindex > 1:
                    facts["run_id"] = urllib.parse.unquote(found[2])
                return operation, facts, self._guarded(getattr(self, handler), found)
        return "queue.unknown", {}, self.unknown

    def _guarded(self, handler, found):
        async def call(request, entry):
            if self.settings.queue_auth == "bearer" and \
                    self.entra.check(bearer(request) or "", "https://storage.azure.com") is not None:
                raise refusal(401, "InvalidAuthenticationInfo", "Authentication information is not given in the correct format.")
            if self.settings.queue_auth == "bearer" and "x-ms-version" not in request.headers:
                raise refusal(400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is not specified.")
            response = await handler(request, entry, found)
            response.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
            return response
        return call

    async def unknown(self, request, entry):
        raise refusal(404, "ResourceNotFound", "The specified resource does not exist.")

    async def put_message(self, request, entry, found):
        try:
            root = xml.fromstring(request.body)
        except xml.ParseError:
            root = None
        if root is None or root.tag != "QueueMessage" or root.find("MessageText") is None:
            raise refusal(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
        self.put(found[1], root.find("MessageText").text or "")
        self.ledger.mark_started(entry)
        return Response(201, b"<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList/>",
                        {"Content-Type": "application/xml"})

    def _messages(self, found):
        if found[1] not in self.queues:
            raise refusal(404, "QueueNotFound", "The specified queue does not exist.")
        return self.queues[found[1]]

    async def get_messages(self, request, entry, found):
        messages = self._messages(found)
        wanted = int(request.query.get("numofmessages", "1"))
        hidden = int(request.query.get("visibilitytimeout", "30"))
        peek = request.query.get("peekonly") == "true"
        if not 1 <= wanted <= 32 or not 0 <= hidden <= 604800:
            raise refusal(400, "OutOfRangeQueryParameterValue",
                          "One of the query parameters specified in the request URI is outside the permissible range.")
        now = time.time()
        taken = [one for one in messages if one.visible <= now][:wanted]
        answer = ['\ufeff<?xml version="1.0" encoding="utf-8"?><QueueMessagesList>']
        for one in taken:
            if not peek:
                one.dequeued += 1
                one.visible = now + self.settings.scaled(hidden)
                one.receipt = base64.b64encode(uuid.uuid4().bytes).decode()
            answer.append(f"<QueueMessage><MessageId>{one.id}</MessageId><InsertionTime>{date(one.inserted)}</InsertionTime>"
                          f"<ExpirationTime>{date(one.inserted + 604800)}</ExpirationTime>")
            if not peek:
                answer.append(f"<PopReceipt>{one.receipt}</PopReceipt><TimeNextVisible>{date(one.visible)}</TimeNextVisible>")
            answer.append(f"<DequeueCount>{one.dequeued}</DequeueCount><MessageText>{escape(one.text)}</MessageText></QueueMessage>")
        answer.append("</QueueMessagesList>")
        return Response(200, "".join(answer).encode(), {"Content-Type": "application/xml"})

    async def clear_messages(self, request, entry, found):
        self._messages(found).clear()
        return Response(204)

    def _message(self, request, found):
        messages = self._messages(found)
        for one in messages:
            if one.id == urllib.parse.unquote(found[2]):
                if one.receipt is None or one.receipt != request.query.get("popreceipt"):
                    raise refusal(400, "PopReceiptMismatch",
                                  "The specified pop receipt did not match the pop receipt for a dequeued message.")
                return messages, one
        raise refusal(404, "MessageNotFound", "The specified message does not exist.")

    async def update_message(self, request, entry, found):
        _, one = self._message(request, found)
        one.visible = time.time() + self.settings.scaled(int(request.query.get("visibilitytimeout", "0")))
        one.receipt = base64.b64encode(uuid.uuid4().bytes).decode()
        return Response(204, b"", {"x-ms-popreceipt": one.receipt, "x-ms-time-next-visible": date(one.visible)})

    async def delete_message(self, request, entry, found):
        messages, one = self._message(request, found)
        messages.remove(one)
        self.ledger.mark_started(entry)
        return Response(204)


def refusal(status, code, message):
    body = f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Refusal(Response(status, body.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code}))


def date(seconds):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
