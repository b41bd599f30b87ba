#!/usr/bin/env python3
"""Compares recorded requests of weir, and what the local cloud answered to anybody, with the descriptions that the vendors publish.

    python3 test/cloud/described/described.py [--check] DESCRIPTIONS RECORDING...

RECORDING is what the local cloud wrote (--record), DESCRIPTIONS the folder with the files named in FILES below.  The answer is one JSON
object: how often weir asked for each described operation (operations), how often anybody did (anybody), what is not described anywhere
(undescribed), and what is not as described (findings).  With --check it is what is not as described, and a last line that counts.
RECORDING may be a folder of such files.  Needs jsonschema and databricks-sdk, and PyYAML where somebody called Neon.
"""

import functools
import json
import pathlib
import sys

from databricks_api import judge as judge_databricks
from swagger import Description, Documents

STORAGE = "storage/specification/storage/data-plane/"
FABRIC = "derived/fabric/{}/swagger.json"
# prefix of paths of the local cloud, and the descriptions of what is below it
FILES = [("/adf", ["derived/adf-2018-06-01/datafactory.json"]),
         ("/fabric", [FABRIC.format(name) for name in ("platform", "dataPipeline", "notebook", "lakehouse", "sparkjobdefinition")]),
         ("/vault", ["keyvault/specification/keyvault/data-plane/Microsoft.KeyVault/stable/7.4/secrets.json"]),
         ("/identity", ["imds/specification/imds/data-plane/Microsoft.InstanceMetadataService/stable/2018-02-01/imds.json"]),
         ("/queue", [STORAGE + "Microsoft.QueueStorage/stable/2018-03-28/queue.json"]),
         ("/hns/blob", [STORAGE + "Microsoft.BlobStorage/stable/2024-08-04/blob.json"]),
         ("/devstoreaccount1", [STORAGE + "Microsoft.BlobStorage/stable/2024-08-04/blob.json",
                                STORAGE + "Microsoft.QueueStorage/stable/2018-03-28/queue.json"]),
         ("/hns/dfs", [STORAGE + "Azure.Storage.Files.DataLake/stable/2023-05-03/DataLakeStorage.json"])]
NEON = "neon/public-v2-for-users.gen.yaml"
# The agent of Azure Arc answers at the address of virtual machines' metadata, whose description is not its own
OTHERS = {"entra.arc"}


def clean(request):
    """Without what a signature adds to a query string: shared access signatures are described elsewhere."""
    path, _, query = request["target"].partition("?")
    if "sig=" in query:
        query = "&".join(part for part in query.split("&") if part.split("=")[0] not in
                         ("sv", "ss", "srt", "sp", "se", "st", "spr", "sig", "sr"))
    return {**request, "target": path + ("?" + query if query else "")}


def recordings(names):
    for name in map(pathlib.Path, names):
        yield from sorted(name.iterdir()) if name.is_dir() else [name]


@functools.cache
def neon(root):
    from openapi import Description as OpenDescription
    return OpenDescription(root / NEON)


def main():
    arguments = sys.argv[1:]
    is_check = arguments[0] == "--check"
    root, *files = arguments[is_check:]
    documents = Documents(pathlib.Path(root))
    descriptions = [(prefix, [Description(documents, name) for name in names]) for prefix, names in FILES]
    operations, anybody, undescribed, findings = {}, {}, {}, {}
    requests = answers = 0
    for file in recordings(files):
        with open(file, encoding="utf-8") as stream:
            for line in stream:
                request = json.loads(line)
                is_ours = request["headers"].get("user-agent", "").startswith("weir/")
                requests += is_ours
                request = clean(request)
                path = request["target"].partition("?")[0]
                judged = None
                if request["operation"] in OTHERS:
                    path = ""
                if path.startswith("/dbx/"):
                    judged = judge_databricks(request, path.removeprefix("/dbx"))
                if path.startswith("/neon/"):
                    judged = neon(documents.root).judge(request, path.removeprefix("/neon"))
                for prefix, list_of in descriptions:
                    if path.startswith(prefix + "/"):
                        judgements = filter(None, (one.judge(request, path.removeprefix(prefix)) for one in list_of))
                        judged = min(judgements, key=lambda one: len(one[1]), default=None)
                if judged is None and is_ours:
                    key = f"{request['operation']} {request['method']}"
                    undescribed[key] = undescribed.get(key, 0) + 1
                if judged is None:
                    continue
                answers += "answer" in request
                operations[judged[0]] = operations.get(judged[0], 0) + is_ours
                anybody[judged[0]] = anybody.get(judged[0], 0) + 1
                for text in [*(judged[1] if is_ours else []), *judged[2]]:
                    text = f"{judged[0]}: {text}"
                    findings.setdefault(text, f"{request['method']} {request['target']} {request.get('body', '')}"[:600])
    if is_check:
        for text, example in sorted(findings.items()):
            print(f"not ok: {text} -- {example}")
        print(f"{max(0, sum(operations.values()) + answers - len(findings))} passed, {len(findings)} failed")
        sys.exit(1 if findings else 0)
    print(json.dumps({"requests": requests, "operations": operations, "anybody": anybody, "undescribed": undescribed,
                      "findings": [f"{text} -- {example}" for text, example in sorted(findings.items())]}, indent=1))


if __name__ == "__main__":
    main()
