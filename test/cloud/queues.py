"""Storage queues: put, get, peek, update and delete messages; XML, as the service speaks it.

    /queue?comp=list                   GET lists queues
    /queue/{queue}                     PUT creates, DELETE deletes; ?comp=metadata: GET says how many messages
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
              ("PUT", r"", "create", "create_queue"), ("DELETE", r"", "drop", "drop_queue"),
              ("GET", r"", "properties", "properties"), ("HEAD", r"", "properties", "properties"),
              ("POST", r"/messages", "put", "put_message"), ("GET", r"/messages", "get", "get_messages"),
              ("DELETE", r"/messages", "clear", "clear_messages"),
              ("PUT", r"/messages/([^/]+)", "update", "update_message"),
              ("DELETE", r"/messages/([^/]+)", "delete", "delete_message"))]


class Message:
    def __init__(self, text, hidden=0):
        self.id = str(uuid.uuid4())
        self.text = text
        self.inserted = time.time()
        self.visible = self.inserted + hidden
        self.dequeued = 0
        self.receipt = new_receipt()

    def describe(self, receipt=False, content=True):
        """As an element; receipt: with what changes the message, as those who put or got it see it."""
        parts = [f"<MessageId>{self.id}</MessageId><InsertionTime>{date(self.inserted)}</InsertionTime>"
                 f"<ExpirationTime>{date(self.inserted + 604800)}</ExpirationTime>"]
        if receipt:
            parts.append(f"<PopReceipt>{self.receipt}</PopReceipt><TimeNextVisible>{date(self.visible)}</TimeNextVisible>")
        if content:
            parts.append(f"<DequeueCount>{self.dequeued}</DequeueCount><MessageText>{escape(self.text)}</MessageText>")
        return f"<QueueMessage>{''.join(parts)}</QueueMessage>"


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
        if path in ("", "/") and request.method == "GET" and request.query.get("comp") == "list":
            return "queue.list", {}, self._guarded(self.list_queues, None)
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
            response.headers.setdefault("x-ms-version", request.headers.get("x-ms-version", "2009-09-19"))
            return response
        return call

    async def unknown(self, request, entry):
        raise refusal(404, "ResourceNotFound", "The specified resource does not exist.")

    # -- queues ----------------------------------------------------------------

    async def list_queues(self, request, entry, found):
        names = [name for name in sorted(self.queues) if name.startswith(request.query.get("prefix", ""))]
        items = "".join(f"<Queue><Name>{name}</Name></Queue>" for name in names)
        return document(200, f'<EnumerationResults ServiceEndpoint="{request.origin}/queue"><Queues>{items}</Queues><NextMarker/>'
                             "</EnumerationResults>")

    async def create_queue(self, request, entry, found):
        if found[1] in self.queues:
            return Response(204)
        self.queues[found[1]] = []
        self.ledger.mark_started(entry)
        return Response(201)

    async def drop_queue(self, request, entry, found):
        self._messages(found)
        del self.queues[found[1]]
        self.ledger.mark_started(entry)
        return Response(204)

    async def properties(self, request, entry, found):
        return Response(200, b"", {"x-ms-approximate-messages-count": str(len(self._messages(found)))})

    # -- messages --------------------------------------------------------------

    async def put_message(self, request, entry, found):
        hidden = limited(request, "visibilitytimeout", 0, 0, 604800)
        message = Message(message_text(request), self.settings.scaled(hidden))
        self._messages(found).append(message)
        self.ledger.mark_started(entry)
        return document(201, f"<QueueMessagesList>{message.describe(receipt=True, content=False)}</QueueMessagesList>")

    def _messages(self, found):
        if found[1] not in self.queues:
            raise refusal(404, "QueueNotFound", "The specified queue does not exist.")
        return self.queues[found[1]]

    async def get_messages(self, request, entry, found):
        messages = self._messages(found)
        wanted = limited(request, "numofmessages", 1, 1, 32)
        peek = request.query.get("peekonly", "").lower() == "true"
        hidden = limited(request, "visibilitytimeout", 30, 1, 604800)
        now = time.time()
        taken = [one for one in messages if one.visible <= now][:wanted]
        for one in [] if peek else taken:
            one.dequeued += 1
            one.visible = now + self.settings.scaled(hidden)
            one.receipt = new_receipt()
        messages = "".join(one.describe(receipt=not peek) for one in taken)
        return document(200, f"<QueueMessagesList>{messages}</QueueMessagesList>")

    async def clear_messages(self, request, entry, found):
        self._messages(found).clear()
        return Response(204)

    def _message(self, request, found):
        messages = self._messages(found)
        for one in messages:
            if one.id == urllib.parse.unquote(found[2]):
                if one.receipt != request.query.get("popreceipt"):
                    raise refusal(400, "PopReceiptMismatch",
                                  "The specified pop receipt did not match the pop receipt for a dequeued message.")
                return messages, one
        raise refusal(404, "MessageNotFound", "The specified message does not exist.")

    async def update_message(self, request, entry, found):
        _, one = self._message(request, found)
        if "visibilitytimeout" not in request.query:
            raise refusal(400, "MissingRequiredQueryParameter", "A query parameter that's mandatory for this request is not specified.")
        hidden = limited(request, "visibilitytimeout", 0, 0, 604800)
        if request.body:
            one.text = message_text(request)
        one.visible = time.time() + self.settings.scaled(hidden)
        one.receipt = new_receipt()
        return Response(204, b"", {"x-ms-popreceipt": one.receipt, "x-ms-time-next-visible": date(one.visible)})

    async def delete_message(self, request, entry, found):
        messages, one = self._message(request, found)
        messages.remove(one)
        self.ledger.mark_started(entry)
        return Response(204)


def new_receipt():
    return base64.b64encode(uuid.uuid4().bytes).decode()


def document(status, text):
    return Response(status, ('\ufeff<?xml version="1.0" encoding="utf-8"?>' + text).encode(), {"Content-Type": "application/xml"})


def message_text(request):
    """MessageText of the QueueMessage that the body must be."""
    try:
        root = xml.fromstring(request.body)
    except xml.ParseError:
        root = None
    if root is None or root.tag != "QueueMessage" or root.find("MessageText") is None:
        raise refusal(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
    return root.find("MessageText").text or ""


def limited(request, name, default, least, most):
    """A number of the query string, within its bounds."""
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise refusal(400, "InvalidQueryParameterValue", "Value for one of the query parameters specified in the request URI is invalid.")
    if not least <= int(text) <= most:
        raise refusal(400, "OutOfRangeQueryParameterValue",
                      "One of the query parameters specified in the request URI is outside the permissible range.")
    return int(text)


def refusal(status, code, message):
    body = f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Refusal(Response(status, body.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code}))


def date(seconds):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
