"""Model serving endpoints: one request, one answer; nothing remembers a request.

    adder   predictions: the sum of the numbers of each record
    chat    echoes the last message, as a chat model does
    broken  refuses, as a model does that does not understand its input
"""

import re

PATH = re.compile(r"/serving-endpoints/([^/]+)/invocations$")


class Serving:
    def __init__(self, settings, ledger, databricks):
        self.settings, self.ledger, self.databricks = settings, ledger, databricks

    def route(self, request, path):
        match = PATH.match(path)
        if not match or request.method != "POST":
            return None

        async def call(request, entry, body):
            return await self._answer(match[1], entry, body)
        asked = request.json_or_none()
        token = asked.get("client_request_id") if isinstance(asked, dict) else None
        return "databricks.invoke", {"endpoint": match[1], "weir_token": token}, self.databricks.guarded(call)

    async def _answer(self, endpoint, entry, body):
        refusal = self.databricks.refusal
        if endpoint not in ("adder", "chat", "broken"):
            raise refusal(404, "RESOURCE_DOES_NOT_EXIST", f"The given endpoint does not exist, please retry after checking "
                          f"the specified model and version deployment exists: {endpoint}")
        if endpoint == "broken":
            raise refusal(400, "BAD_REQUEST", "Failed to enforce schema of data: Model is missing inputs ['x'].")
        self.ledger.mark_started(entry)
        await self.settings.pause(0.1)
        if endpoint == "chat":
            if not isinstance(body.get("messages"), list) or not body["messages"]:
                raise refusal(400, "BAD_REQUEST", "messages is required.")
            text = body["messages"][-1].get("content")
            return {"id": "chat-1", "object": "chat.completion", "created": 1, "model": "echo",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                    "usage": {"prompt_tokens": len(text.split()), "completion_tokens": len(text.split()),
                              "total_tokens": 2 * len(text.split())}}
        return {"predictions": [sum(value for value in row if isinstance(value, (int, float))) for row in rows(body, refusal)],
                "served_model_name": "adder-1"}


def rows(body, refusal):
    """The values of each record, whatever the format of the input."""
    given = [name for name in ("dataframe_records", "dataframe_split", "instances", "inputs") if name in body]
    if len(given) != 1:
        raise refusal(400, "BAD_REQUEST", "Invalid input. The input must be a JSON dictionary with exactly one of the input "
                      "fields {'dataframe_records', 'instances', 'inputs', 'dataframe_split'}.")
    value = body[given[0]]
    if given[0] == "dataframe_split":
        return value["data"]
    if isinstance(value, dict):                     # columns
        return list(zip(*value.values()))
    return [list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else [one] for one in value]
