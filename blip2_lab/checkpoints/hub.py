"""Whether the Hugging Face hub has a model of this name, found out before torch is imported.

`check_available` is where to begin: the app and the commands call it with the name that they were given.

Notes:

* huggingface_hub repeats a request that fails, for 8 seconds. So the hub is first asked once, with `CONNECT_TIME` to
  connect: no network, or a proxy or a certificate that does not work, is refused at once.
* The request is huggingface_hub's own (`get_session`, `constants.ENDPOINT`): proxies, mirrors and HF_HUB_OFFLINE count.

Notebook: 07.
"""

from __future__ import annotations

import os
from pathlib import Path

from blip2_lab.checkpoints.names import check_name, model_path

CONNECT_TIME = 1.0  #: seconds to connect to the hub; HF_HUB_ETAG_TIMEOUT, where it is set, counts instead
SAFETENSORS = "*.safetensors"
WANTED = ("*.json", "*.txt", "*.model", SAFETENSORS)  #: files of a repository that are downloaded
#: The same where there are no safetensors, such as facebook/opt-2.7b.
WANTED_PICKLED = (*WANTED[:-1], "pytorch_model*.bin")


def check_available(name_or_path: str | Path) -> None:
    """Raises ValueError for a model that is neither here nor in the hub's cache, where the hub does not answer.

    What the cache holds may be half a model; `files.cached_folder` looks closer.
    """
    check_name(name_or_path)
    name, path = str(name_or_path), model_path(name_or_path)
    if name == "micro" or path.exists() or _is_in_cache(name):
        return
    if (reason := why_unreachable()) is not None:
        raise ValueError(not_fetched(name, reason))


def _is_in_cache(name: str) -> bool:
    """Whether a download of the hub's newest version has begun here."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # the hub says what a name may look like
        return False


def why_unreachable(endpoint: str | None = None) -> str | None:
    """Why the hub does not answer, in one line; None where it does, whatever it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub is not asked"
    patience = constants.HF_HUB_ETAG_TIMEOUT
    connecting = patience if "HF_HUB_ETAG_TIMEOUT" in os.environ else CONNECT_TIME
    try:
        # a hub that is there may take its time to answer: another refusal than "no network" would be wrong
        timeout = (connecting, patience, patience, patience)  # to connect, read, write, and get a connection
        get_session().head(endpoint or constants.ENDPOINT, timeout=timeout, follow_redirects=False)
    except Exception as error:  # depends on the HTTP client, the proxy and the endpoint's text
        longer = f" in {connecting} s; HF_HUB_ETAG_TIMEOUT=10 waits longer" if "Timeout" in type(error).__name__ else ""
        return first_line(error) + longer
    return None


def not_fetched(name: str, reason: str) -> str:
    """The sentence about a model that is not here and could not be fetched, with what to do."""
    return (
        f"{name} is not a folder here and could not be fetched from the Hugging Face hub ({reason}). With a "
        "network, the same command fetches it, and goes on where it stopped. "
        f"Or fetch it elsewhere with {download_command(name)}, and give that folder."
    )


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its text."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")


def download_command(name: str) -> str:
    """The command that downloads the files of a model that are read here into a folder."""
    patterns = WANTED_PICKLED if name.startswith("facebook/opt-") else WANTED  # they have no safetensors
    wanted = " ".join(f"'{pattern}'" for pattern in patterns)
    return f"`hf download {name} --include {wanted} --local-dir {name.split('/')[-1]}`"
