"""A model by its hub id: only its config.json is fetched, through huggingface_hub."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from quantrecipe.catalog import lookup
from quantrecipe.errors import ModelError
from quantrecipe.model import ModelSpec

_TIMEOUT = 5  # seconds


def from_hub(repo_id: str) -> ModelSpec:
    """The model of that hub id. Raises ModelError where it is unknown, gated, or the hub is out of reach."""
    from quantrecipe.catalog.local import from_path

    spec = from_path(_config(repo_id))
    return replace(spec, id=repo_id, hub_id=repo_id, local=False)


def _config(repo_id: str) -> Path:
    """config.json from the local cache, else from the hub if its name resolves: the client retries for long."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise _unknown(repo_id, "huggingface_hub is not installed") from error
    try:
        cached = hub.try_to_load_from_cache(repo_id, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        if not _reachable(hub.constants.ENDPOINT):
            raise _unknown(repo_id, "the hub is out of reach")
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it says each retry
        return Path(hub.hf_hub_download(repo_id, "config.json", etag_timeout=_TIMEOUT))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _unknown(repo_id, f"the hub gives no config.json: {type(error).__name__}") from error


def _reachable(endpoint: str) -> bool:
    if getproxies().get("https"):  # the client goes through it; a connection of our own would not
        return True
    host = urlsplit(endpoint)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True


def _unknown(repo_id: str, reason: str) -> ModelError:
    nearest = lookup.unknown(repo_id)
    return ModelError(nearest.what, value=repo_id, limit=f"not in the catalogue, and {reason}", remedy=nearest.remedy)
