#!/usr/bin/env python3
"""A session of Microsoft's SDKs for Python with the local cloud: they must understand every answer.

    python3 test/cloud/sdk/check_azure.py

Needs azure-identity, azure-mgmt-datafactory, azure-keyvault-secrets, azure-storage-blob, azure-storage-queue and
azure-storage-file-datalake.  They talk TLS, as they insist on; nothing of them is replaced.
"""

import base64
import datetime
import hashlib
import json
import os
import pathlib
import sys
import time
import traceback

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import (ClientAuthenticationError, HttpResponseError, ResourceExistsError,
                                   ResourceModifiedError, ResourceNotFoundError)
from azure.identity import (CertificateCredential, ClientSecretCredential, ManagedIdentityCredential,
                            WorkloadIdentityCredential)
from azure.keyvault.secrets import SecretClient
from azure.mgmt.datafactory import DataFactoryManagementClient
from azure.mgmt.datafactory.models import RunFilterParameters, RunQueryFilter, RunQueryOrderBy
from azure.storage.blob import BlobServiceClient
from azure.storage.filedatalake import (DataLakeServiceClient, ResourceTypes, generate_account_sas, generate_directory_sas,
                                        generate_file_system_sas)
from azure.storage.queue import QueueServiceClient, TextBase64DecodePolicy, TextBase64EncodePolicy

from localcloud import LocalCloud, check, make_certificate, openssl, post, refused, summary, until

TENANT = "11111111-2222-3333-4444-555555555555"         # the one whose vault it is
STORAGE = "https://storage.azure.com/.default"
VAULT = "https://vault.azure.net/.default"
PLACE = ("rg", "df")
ACCOUNT, ACCOUNT_KEY = "weirlake", base64.b64encode(bytes(range(64))).decode()     # as in settings.py


def entra(cloud):
    return {"authority": cloud.secure, "disable_instance_discovery": True}


def secret_credential(cloud, secret="weir-secret"):
    return ClientSecretCredential(TENANT, "weir-client", secret, **entra(cloud))


def public_key(certificate):
    """What the cloud has to know of a certificate."""
    modulus = openssl("x509", "-in", certificate, "-noout", "-modulus").decode().strip().partition("=")[2]
    der = openssl("x509", "-in", certificate, "-outform", "DER")
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    legacy = base64.urlsafe_b64encode(hashlib.sha1(der).digest()).rstrip(b"=").decode()
    return {"x5t#S256": thumbprint, "x5t": legacy, "n": modulus, "e": 65537}


def federated_token(base, claims):
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    signed = b".".join(parts)
    signature = openssl("dgst", "-sha256", "-sign", base + ".key", text=signed)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def identity(cloud):
    token = secret_credential(cloud).get_token(STORAGE)
    check("identity: a secret", len(token.token) > 500 and 0 < token.expires_on - time.time() <= 3600, token.expires_on)
    wrong = refused(lambda: secret_credential(cloud, "wrong").get_token(STORAGE), ClientAuthenticationError)
    check("identity: a wrong secret", wrong and "AADSTS7000215" in wrong.message, wrong)
    unknown = refused(lambda: ClientSecretCredential(TENANT, "nobody", "x", **entra(cloud)).get_token(STORAGE), ClientAuthenticationError)
    check("identity: an unknown application", unknown and "AADSTS700016" in unknown.message, unknown)
    scope = refused(lambda: secret_credential(cloud).get_token("https://nothing.example/.default"), ClientAuthenticationError)
    check("identity: an unknown scope", scope and "AADSTS500011" in scope.message, scope)
    post(cloud.address, "/_cloud/config", {"tenants": ["another"]})
    tenant = refused(lambda: secret_credential(cloud).get_token(STORAGE), ClientAuthenticationError)
    check("identity: an unknown tenant", tenant is not None and "enant" in tenant.message, tenant)
    post(cloud.address, "/_cloud/config", {"tenants": None})

    base = make_certificate(cloud.directory, "client")
    other = make_certificate(cloud.directory, "other")
    post(cloud.address, "/_cloud/config", {"certificates": {"weir-client": [public_key(base + ".crt")]}})
    for name in (base, other):
        pathlib.Path(name + ".pem").write_text(pathlib.Path(name + ".key").read_text() + pathlib.Path(name + ".crt").read_text())
    credential = CertificateCredential(TENANT, "weir-client", base + ".pem", **entra(cloud))
    check("identity: a certificate", credential.get_token(STORAGE).token)
    stranger = CertificateCredential(TENANT, "weir-client", other + ".pem", **entra(cloud))
    error = refused(lambda: stranger.get_token(STORAGE), ClientAuthenticationError)
    check("identity: another certificate", error and "AADSTS700027" in error.message, error)

    issuer = "https://issuer.example"
    post(cloud.address, "/_cloud/config", {"federated": {"workload": {
        "issuer": issuer, "subject": "pod", "audience": "api://AzureADTokenExchange", **public_key(base + ".crt")}}})
    file = pathlib.Path(cloud.directory) / "token"
    claims = {"iss": issuer, "sub": "pod", "aud": "api://AzureADTokenExchange", "exp": int(time.time()) + 600, "iat": int(time.time())}
    file.write_text(federated_token(base, claims))
    workload = dict(tenant_id=TENANT, client_id="workload", token_file_path=str(file), **entra(cloud))
    check("identity: federation", WorkloadIdentityCredential(**workload).get_token(STORAGE).token)
    file.write_text(federated_token(base, {**claims, "sub": "another"}))
    error = refused(lambda: WorkloadIdentityCredential(**workload).get_token(STORAGE), ClientAuthenticationError)
    check("identity: another subject", error and "AADSTS700213" in error.message, error)


def managed_identity(cloud):
    post(cloud.address, "/_cloud/config", {"identities": ["assigned"]})
    os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = cloud.address
    token = ManagedIdentityCredential().get_token(STORAGE)
    check("managed identity: of a machine", len(token.token) > 500 and 0 < token.expires_on - time.time() <= 3600)
    check("managed identity: one assigned", ManagedIdentityCredential(client_id="assigned").get_token(STORAGE).token)
    error = refused(lambda: ManagedIdentityCredential(client_id="other").get_token(STORAGE), ClientAuthenticationError)
    check("managed identity: not assigned", error and "Identity not found" in error.message, error)
    os.environ.update(IDENTITY_ENDPOINT=cloud.address + "/msi/token", IDENTITY_HEADER="local-identity-header")
    check("managed identity: of a function", ManagedIdentityCredential().get_token(STORAGE).token)
    os.environ["IDENTITY_HEADER"] = "wrong"
    error = refused(lambda: ManagedIdentityCredential().get_token(STORAGE), ClientAuthenticationError)
    check("managed identity: a wrong header", error is not None, error)
    for name in ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        del os.environ[name]


def data_factory(cloud):
    client = DataFactoryManagementClient(secret_credential(cloud), "s1", base_url=cloud.secure + "/adf",
                                         credential_scopes=["https://management.azure.com/.default"])
    check("adf: factory", client.factories.get(*PLACE).name == "df")
    names = {pipeline.name for pipeline in client.pipelines.list_by_factory(*PLACE)}
    check("adf: pipelines", names >= {"copy_flights", "wait", "fail"}, names)
    wait = client.pipelines.get(*PLACE, "wait")
    check("adf: a pipeline", wait.parameters["seconds"].default_value == 1 and wait.activities[0].type == "Wait", wait)
    missing = refused(lambda: client.pipelines.create_run(*PLACE, "none"), ResourceNotFoundError)
    check("adf: unknown pipeline", missing and missing.error.code == "PipelineNotFound", missing)
    check("adf: unknown run", refused(lambda: client.pipeline_runs.get(*PLACE, "none"), ResourceNotFoundError))
    created = client.pipelines.create_run(*PLACE, "copy_flights", parameters={"row_audit_id": 31, "weir_token": "t"})
    run, seen = follow(client, created.run_id)
    check("adf: states", "InProgress" in seen and run.status == "Succeeded", (seen, run.status))
    check("adf: a run", run.parameters == {"row_audit_id": "31", "weir_token": "t"} and run.duration_in_ms > 0
          and run.run_end > run.run_start and run.invoked_by.name == "Manual" and run.is_latest
          and run.run_group_id == run.run_id, run)
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    window = RunFilterParameters(last_updated_after=now - hour, last_updated_before=now + hour)
    activities = client.activity_runs.query_by_pipeline_run(*PLACE, created.run_id, window).value
    check("adf: activities", [a.activity_type for a in activities] == ["Lookup", "Copy"] and
          activities[1].output["rowsCopied"] == 4334 and activities[1].error["errorCode"] == "", activities)
    data_factory_recovers(client, window)
    waiting = client.pipelines.create_run(*PLACE, "wait", parameters={"seconds": 100000}).run_id
    until(lambda: refused(lambda: client.pipeline_runs.cancel(*PLACE, waiting, is_recursive=True), HttpResponseError),
          lambda error: error is None)
    check("adf: cancelled", follow(client, waiting)[0].status == "Cancelled")
    again = refused(lambda: client.pipeline_runs.cancel(*PLACE, waiting), HttpResponseError)
    check("adf: cancelled twice", again and again.status_code == 400, again)
    window.filters = [RunQueryFilter({"operand": "Status", "operator": "Equals", "values": ["Cancelled"]})]
    window.order_by = [RunQueryOrderBy(order_by="RunStart", order="DESC")]
    found = client.pipeline_runs.query_by_factory(*PLACE, window).value
    check("adf: query", [run.run_id for run in found] == [waiting], found)
    window.filters = window.order_by = None
    post(cloud.address, "/_cloud/config", {"page_size": 2})
    pages, token = [], None
    while not pages or token:
        window.continuation_token = token
        page = client.pipeline_runs.query_by_factory(*PLACE, window)
        pages.append([run.run_id for run in page.value])
        token = page.continuation_token
    check("adf: pages", [len(page) for page in pages] == [2, 2] and len(set(sum(pages, []))) == 4, pages)
    post(cloud.address, "/_cloud/config", {"page_size": 100})
    post(cloud.address, "/_cloud/faults", {"operation": "adf.getRun", "status": 429, "retry_after": 0, "times": 2})
    check("adf: the SDK's retries get through", client.pipeline_runs.get(*PLACE, waiting).status == "Cancelled")


def data_factory_recovers(client, window):
    failed = client.pipelines.create_run(*PLACE, "fail", parameters={"message": "no file"}).run_id
    run, _ = follow(client, failed)
    check("adf: failed", run.status == "Failed" and "no file" in run.message, run)
    activity = client.activity_runs.query_by_pipeline_run(*PLACE, failed, window).value[0]
    check("adf: its error", activity.error["errorCode"] == "2200" and activity.error["failureType"] == "UserError"
          and activity.error["target"] == "Fail", activity.error)
    again = client.pipelines.create_run(*PLACE, "fail", reference_pipeline_run_id=failed, is_recovery=True, start_from_failure=True).run_id
    run, _ = follow(client, again)
    check("adf: recovery", run.run_group_id == failed and run.parameters["message"] == "no file"
          and not client.pipeline_runs.get(*PLACE, failed).is_latest, run)


def follow(client, run_id):
    """The run at its end, and its states on the way; a new run may not be seen at once."""
    seen = set()

    def look():
        try:
            run = client.pipeline_runs.get(*PLACE, run_id)
        except ResourceNotFoundError:
            return None
        seen.add(run.status)
        return run
    return until(look, lambda run: run and run.status in ("Succeeded", "Failed", "Cancelled")), seen


def key_vault(cloud):
    # The address is not one of a vault, so the SDK is told not to compare it with the challenge
    vault = SecretClient(cloud.secure, secret_credential(cloud), verify_challenge_resource=False)
    first = vault.set_secret("password", "one", content_type="text/plain", tags={"a": "b"})
    check("vault: set", first.value == "one" and first.name == "password" and first.properties.version
          and first.properties.tags == {"a": "b"} and first.properties.created_on, first.properties)
    second = vault.set_secret("password", "two", enabled=True)
    check("vault: the newest", vault.get_secret("password").value == "two")
    check("vault: a version", vault.get_secret("password", first.properties.version).value == "one")
    check("vault: versions", {one.version for one in vault.list_properties_of_secret_versions("password")} ==
          {first.properties.version, second.properties.version})
    for number in range(5):
        vault.set_secret(f"other-{number}", "x")
    names = [one.name for one in vault.list_properties_of_secrets(max_page_size=2)]
    check("vault: pages", names == [f"other-{number}" for number in range(5)] + ["password"], names)
    missing = refused(lambda: vault.get_secret("none"), ResourceNotFoundError)
    check("vault: unknown", missing and missing.error.code == "SecretNotFound", missing)
    check("vault: unknown version", refused(lambda: vault.get_secret("password", "0" * 32), ResourceNotFoundError))
    vault.set_secret("off", "x", enabled=False)
    off = refused(lambda: vault.get_secret("off"), HttpResponseError)
    check("vault: disabled", off and off.status_code == 403 and off.error.innererror["code"] == "SecretDisabled", off)
    expires = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
    vault.set_secret("dated", "x", expires_on=expires)
    check("vault: a date", vault.get_secret("dated").properties.expires_on == expires)
    wrong = SecretClient(cloud.secure, secret_credential(cloud, "wrong"), verify_challenge_resource=False)
    check("vault: a wrong secret", refused(lambda: wrong.get_secret("password"), ClientAuthenticationError))


def queue(cloud):
    post(cloud.address, "/_cloud/config", {"queue_auth": "bearer"})
    service = QueueServiceClient(cloud.secure + "/queue", secret_credential(cloud))
    client = service.get_queue_client("events", message_encode_policy=TextBase64EncodePolicy(),
                                      message_decode_policy=TextBase64DecodePolicy())
    missing = refused(lambda: client.receive_message(), ResourceNotFoundError)
    check("queue: unknown", missing and missing.error_code == "QueueNotFound", missing)
    client.create_queue()
    check("queue: made once", refused(client.create_queue, ResourceExistsError))
    put = client.send_message("hello <&>")
    check("queue: sent", put.id and put.pop_receipt and put.expires_on > put.inserted_on and put.next_visible_on, put)
    peeked = client.peek_messages()
    check("queue: peeked", [one.content for one in peeked] == ["hello <&>"] and peeked[0].pop_receipt is None, peeked)
    check("queue: length", client.get_queue_properties().approximate_message_count == 1)
    got = client.receive_message(visibility_timeout=6000)
    check("queue: received", got.id == put.id and got.content == "hello <&>" and got.dequeue_count == 1
          and got.next_visible_on > got.inserted_on, got)
    check("queue: hidden", client.receive_message() is None)
    stale = got.pop_receipt
    kept = client.update_message(got, visibility_timeout=6000, content="changed")
    check("queue: updated", kept.pop_receipt and kept.pop_receipt != stale and kept.next_visible_on, kept)
    mismatch = refused(lambda: client.delete_message(got.id, stale), HttpResponseError)
    check("queue: an old receipt", mismatch and mismatch.error_code == "PopReceiptMismatch", mismatch)
    client.update_message(got.id, kept.pop_receipt, visibility_timeout=0)
    got = client.receive_message()
    check("queue: changed text", got.content == "changed" and got.dequeue_count == 2, got)
    client.delete_message(got)
    gone = refused(lambda: client.delete_message(got), ResourceNotFoundError)
    check("queue: gone", gone and gone.error_code == "MessageNotFound", gone)
    later = client.send_message("later", visibility_timeout=1000)
    check("queue: not yet", client.receive_message() is None and later.next_visible_on > later.inserted_on)
    client.clear_messages()
    for number in range(40):
        client.send_message(str(number))
    pages = [len(list(page)) for page in client.receive_messages(messages_per_page=32, visibility_timeout=6000).by_page()]
    check("queue: many", sum(pages) == 40 and pages[0] == 32, pages)
    other = service.get_queue_client("never")
    check("queue: into nothing", refused(lambda: other.send_message("x"), ResourceNotFoundError))
    check("queue: listed", [one.name for one in service.list_queues()] == ["events"])
    client.delete_queue()
    check("queue: deleted", refused(lambda: client.receive_message(), ResourceNotFoundError))
    post(cloud.address, "/_cloud/config", {"queue_auth": "none"})


def blobs(cloud):
    service = BlobServiceClient(cloud.secure + "/hns/blob", secret_credential(cloud))
    container = service.get_container_client("lake")
    data = b"a,b\n1,2\n"
    put = container.upload_blob("in/ümläut & +%.csv", data, metadata={"source": "x"}, overwrite=False)
    check("blob: uploaded", put.blob_name)
    taken = refused(lambda: container.upload_blob("in/ümläut & +%.csv", data, overwrite=False), ResourceExistsError)
    check("blob: not again", taken and taken.error_code == "BlobAlreadyExists", taken)
    properties = put.get_blob_properties()
    check("blob: properties", properties.size == len(data) and properties.etag and properties.last_modified
          and properties.blob_type == "BlockBlob" and properties.metadata == {"source": "x"}
          and properties.content_settings.content_md5 == hashlib.md5(data).digest(), properties)
    check("blob: text", put.download_blob().readall() == data)
    part = put.download_blob(offset=2, length=3).readall()
    check("blob: a range", part == data[2:5], part)
    for number in range(5):
        container.upload_blob(f"in/{number}.csv", b"x" * number)
    listed = [one.name for one in container.list_blobs(name_starts_with="in/", results_per_page=2)]
    check("blob: listed", listed == ["in/0.csv", "in/1.csv", "in/2.csv", "in/3.csv", "in/4.csv", "in/ümläut & +%.csv"], listed)
    one = next(iter(container.list_blobs(name_starts_with="in/3")))
    check("blob: one of the list", one.size == 3 and one.etag and one.last_modified and one.content_settings.content_md5, one)
    walked = [one.name for one in container.walk_blobs(name_starts_with="", delimiter="/")]
    check("blob: folders", walked == ["in/"], walked)
    check("blob: containers", [one.name for one in service.list_containers()] == ["lake"])
    client = container.get_blob_client("in/3.csv")
    etag = client.get_blob_properties().etag
    client.upload_blob(b"new", overwrite=True)
    changed = refused(lambda: client.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified), ResourceModifiedError)
    check("blob: changed meanwhile", changed and changed.error_code == "ConditionNotMet", changed)
    client.delete_blob()
    gone = refused(lambda: client.download_blob(), ResourceNotFoundError)
    check("blob: gone", gone and gone.error_code == "BlobNotFound", gone)
    check("blob: is not there", not client.exists())


def data_lake(cloud):
    service = DataLakeServiceClient(cloud.secure + "/hns/dfs", secret_credential(cloud))
    system = service.get_file_system_client("lake")
    system.get_directory_client("archive/2026").create_directory()
    file = system.get_file_client("in/1.csv")
    moved = file.rename_file("lake/archive/2026/1.csv")
    check("lake: renamed", moved.path_name == "archive/2026/1.csv" and moved.get_file_properties().size == 1, moved.path_name)
    again = refused(lambda: file.rename_file("lake/archive/2026/1.csv"), ResourceNotFoundError)
    check("lake: nothing to rename", again and again.error_code == "SourcePathNotFound", again)
    parent = refused(lambda: system.get_file_client("in/2.csv").rename_file("lake/none/2.csv"), ResourceNotFoundError)
    check("lake: no folder to go to", parent and parent.error_code == "RenameDestinationParentPathNotFound", parent)
    paths = {one.name: one for one in system.get_paths(path="archive", recursive=True)}
    check("lake: listed", set(paths) == {"archive/2026", "archive/2026/1.csv"} and paths["archive/2026"].is_directory
          and paths["archive/2026/1.csv"].content_length == 1 and paths["archive/2026/1.csv"].etag, paths)
    moved.delete_file()
    check("lake: deleted", not moved.exists())


def signed(cloud):
    """Shared Key and SAS, which the SDKs make and the local cloud verifies: on blobs, and with a rename, which names a source."""
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    everything = {"permission": "racwdlm", "expiry": end}
    ways = {"shared key": AzureNamedKeyCredential(ACCOUNT, ACCOUNT_KEY),
            "SAS of the account": generate_account_sas(ACCOUNT, ACCOUNT_KEY, ResourceTypes(service=True, file_system=True, object=True), "racwdl", end),
            "SAS of a container": generate_file_system_sas(ACCOUNT, "lake", ACCOUNT_KEY, **everything),
            "SAS of a folder": generate_directory_sas(ACCOUNT, "lake", "signed/deep", ACCOUNT_KEY, **everything)}
    for way, credential in ways.items():
        container = BlobServiceClient(cloud.secure + "/hns/blob", credential).get_container_client("lake")
        container.upload_blob("signed/deep/ü &+%.csv", b"x", overwrite=True)
        system = DataLakeServiceClient(cloud.secure + "/hns/dfs", credential).get_file_system_client("lake")
        moved = system.get_file_client("signed/deep/ü &+%.csv").rename_file("lake/signed/deep/there.csv")
        check(f"signed: {way}: renamed", moved.get_file_properties().size == 1)
        check(f"signed: {way}: read", container.get_blob_client("signed/deep/there.csv").download_blob().readall() == b"x")
        moved.delete_file()
    listed = BlobServiceClient(cloud.secure + "/hns/blob", ways["SAS of the account"])
    check("signed: containers", [one.name for one in listed.list_containers()] == ["lake"])
    other = "A" * 86 + "=="
    for what, credential in (("another key", AzureNamedKeyCredential(ACCOUNT, other)), ("a SAS of another key", generate_file_system_sas(ACCOUNT, "lake", other, **everything)),
                             ("a SAS of another container", generate_file_system_sas(ACCOUNT, "river", ACCOUNT_KEY, **everything)),
                             ("a SAS that ended", generate_file_system_sas(ACCOUNT, "lake", ACCOUNT_KEY, permission="racwdlm", expiry=end - datetime.timedelta(hours=2))),
                             ("a SAS of another folder", generate_directory_sas(ACCOUNT, "lake", "elsewhere", ACCOUNT_KEY, **everything))):
        for service in (BlobServiceClient(cloud.secure + "/hns/blob", credential).get_blob_client("lake", "in/0.csv").download_blob,
                        DataLakeServiceClient(cloud.secure + "/hns/dfs", credential).get_file_system_client("lake").get_file_client("in/0.csv").get_file_properties):
            wrong = refused(service, ClientAuthenticationError)
            check(f"signed: {what}", wrong and wrong.error_code == "AuthenticationFailed", wrong)
    reading = generate_file_system_sas(ACCOUNT, "lake", ACCOUNT_KEY, permission="rl", expiry=end)
    may_not = refused(lambda: BlobServiceClient(cloud.secure + "/hns/blob", reading).get_blob_client("lake", "in/0.csv").delete_blob(), HttpResponseError)
    check("signed: a right that is missing", may_not and may_not.error_code == "AuthorizationPermissionMismatch", may_not)


def main():
    with LocalCloud() as cloud:
        for session in (identity, managed_identity, data_factory, key_vault, queue, blobs, data_lake, signed):
            try:
                session(cloud)
            except Exception as error:      # the others are still worth hearing
                traceback.print_exc(file=sys.stdout)
                check(f"{session.__name__} goes on to its end", False, repr(error))
    return summary()


if __name__ == "__main__":
    sys.exit(main())
