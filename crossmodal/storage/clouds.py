"""Options for S3, Google Cloud and Azure.

obstore reads most of them from the environment. This module adds those that it does not read, or
reads in another way than the clouds' own tools.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from crossmodal.errors import InvalidSetting, described
from crossmodal.extras import remedy

S3 = ("s3", "s3a")
GOOGLE = ("gs",)
AZURE = ("az", "azure", "adl", "abfs", "abfss")
SIGNABLE = (*S3, *GOOGLE, *AZURE)
CONNECT_S = 5.0
ENDPOINTS = {  # the first one that is set counts
    S3: ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    GOOGLE: ("GOOGLE_BASE_URL",),
    AZURE: ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def cloud_options(url: str, timeout_s: float, ca_file: Path | None = None) -> dict[str, Any]:
    """Return obstore's arguments for the store at `url`. Raises `InvalidSetting`."""
    scheme, env = urlsplit(url).scheme, os.environ
    client: dict[str, Any] = {
        "timeout": f"{timeout_s}s",
        "connect_timeout": f"{min(CONNECT_S, timeout_s)}s",
        # No TLS only if the endpoint's URL is http, as for a local store.
        "allow_http": _endpoint(scheme, env).startswith("http://") or _is_emulated(scheme, env),
    }
    if certificates := _certificates(scheme, env, ca_file):
        client["root_certificate"] = certificates
    options: dict[str, Any] = {
        "client_options": client,
        "retry_config": {"retry_timeout": timedelta(seconds=timeout_s)},
    }
    if scheme in S3:
        options |= _s3_options(url, env)
    return options


def _endpoint(scheme: str, env: Mapping[str, str]) -> str:
    names = next((names for schemes, names in ENDPOINTS.items() if scheme in schemes), ())
    return next((env[name] for name in names if env.get(name)), "")


def _is_emulated(scheme: str, env: Mapping[str, str]) -> bool:
    """Return whether Azure's emulator, Azurite, is enabled; it listens at a fixed loopback port."""
    return scheme in AZURE and _is_on(env, "AZURE_STORAGE_USE_EMULATOR")


def _is_on(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("1", "true", "yes", "on")


def _certificates(scheme: str, env: Mapping[str, str], ca_file: Path | None) -> str:
    """Return the certificates (PEM) of authorities to trust beside the system's."""
    name, path = "CROSSMODAL_STORAGE_CA_FILE", ca_file
    if path is None and scheme in S3 and env.get("AWS_CA_BUNDLE"):
        name, path = "AWS_CA_BUNDLE", Path(env["AWS_CA_BUNDLE"])
    if path is None:
        return ""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidSetting(f"{name}={path} cannot be read: {described(e)}") from e
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidSetting(f"{name}={path} holds no certificate in PEM")
    return text


def _s3_options(url: str, env: Mapping[str, str]) -> dict[str, Any]:
    # Blobs are deleted one by one: every store supports that, but not bulk deletes.
    config: dict[str, Any] = {"disable_bulk_delete": True}
    if endpoint := _endpoint("s3", env):
        # As in the SDKs, an endpoint for virtual-hosted style may lack the bucket.
        hosted = _is_on(env, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
        config["endpoint"] = _with_bucket(endpoint, url) if hosted else endpoint
    options: dict[str, Any] = {"config": config}
    if env.get("AWS_PROFILE") and not all(env.get(key) for key in KEYS):
        options["credential_provider"] = _profile(env["AWS_PROFILE"])
    return options


def _with_bucket(endpoint: str, url: str) -> str:
    parts, bucket = urlsplit(endpoint), urlsplit(url).netloc
    if parts.netloc.startswith(f"{bucket}."):
        return endpoint
    return urlunsplit(parts._replace(netloc=f"{bucket}.{parts.netloc}"))


def _profile(name: str) -> Any:
    """Return credentials of a profile in ~/.aws, also of single sign-on and assumed roles."""
    try:
        from boto3 import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as e:
        raise InvalidSetting(
            f"AWS_PROFILE={name} needs boto3: {remedy('aws')}, or set {KEYS[0]} and {KEYS[1]}"
        ) from e
    try:
        return Boto3CredentialProvider(Session(profile_name=name))
    except Exception as e:  # botocore's own errors
        raise InvalidSetting(f"AWS_PROFILE={name} cannot be used: {e}") from e
