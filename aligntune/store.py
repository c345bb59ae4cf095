"""A client of MLflow's store, and its failures as ours."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import NO_CONTENT, NOT_FOUND
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils import rest_utils

from aligntune.errors import ConfigError, ServiceError
from aligntune.paths import database_file

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says of what is not there."""
_CLIENTS = {"requests", "urllib3", "botocore", "boto3", "azure", "google", "sqlalchemy"}
"""Packages whose errors MLflow passes on, most of which are not installed."""
_VERIFIED = rest_utils.verify_rest_response


def client_of(uri: str) -> MlflowClient:
    """A client of a store that is there.

    Raises:
        MlflowException: it would be a file, and that is not there; MLflow would make it.
    """
    file = database_file(uri)
    if file and not file.exists():
        raise MlflowException(f"there is no {file}", RESOURCE_DOES_NOT_EXIST)
    # A client that repeats a request by itself makes a second run where only the answer was lost.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "45")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    rest_utils.verify_rest_response = _whole
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _whole(response: Any, *arguments: Any, **options: Any) -> Any:
    """MLflow's own check, which takes an answer that broke off in its head for an empty one: what
    was searched for is not there then, and what was made has the id ''."""
    head = response.headers
    ended = head.get("Content-Length") == "0" or head.get("Transfer-Encoding") == "chunked"
    if response.status_code != NO_CONTENT and not response.content and not ended:
        raise MlflowException("the connection broke off in the middle of an answer")
    return _VERIFIED(response, *arguments, **options)


@contextmanager
def asking(remedy: str, missing: str | None = None) -> Iterator[None]:
    """Turns failures of MLflow, and of where it keeps files, into a ServiceError with `remedy`; or
    into a ConfigError that says `missing`, if that is given and it is not there."""
    try:
        yield
    except Exception as error:
        if not of_a_server(error):
            raise
        absent = getattr(error, "error_code", None) in ABSENT or status_of(error) == NOT_FOUND
        if missing and absent:
            raise ConfigError(f"{missing} ({one_line(error)})") from error
        raise ServiceError(f"MLflow failed: {one_line(error)}; {remedy}") from error


def every(search: Callable[..., Any]) -> Iterator[Any]:
    """What a search finds, page by page."""
    token = None
    while True:
        found = search(page_token=token)
        yield from found
        if not (token := found.token):
            return


def of_a_server(error: BaseException) -> bool:
    """Whether MLflow, its database or where it keeps files has failed or refused."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, MlflowException) or not packages.isdisjoint(_CLIENTS)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a server of files answered with."""
    answer: Any = getattr(error, "response", None)
    if answer is None and error.__context__:  # boto3 hides the one in the other
        return status_of(error.__context__)
    if isinstance(answer, dict):  # boto3's
        answer = answer.get("ResponseMetadata", {})
        return int(answer["HTTPStatusCode"]) if "HTTPStatusCode" in answer else None
    return getattr(answer, "status_code", None)


def one_line(error: BaseException) -> str:
    """One line, without the chain of causes that HTTP clients nest."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]
