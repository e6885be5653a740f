"""The extras of the distribution: their modules, and errors if they are not installed."""

from importlib.util import find_spec

from crossmodal.errors import ExtraMissing

DISTRIBUTION = "crossmodal-jobs"  # the name for pip; the packages have other names

_WEBHOOKS = ("httpx2", "standardwebhooks")
_WORKER = (
    "torch",
    "cv2",
    "numpy",
    "PIL",
    "rapidfuzz",
    "regex",
    "safetensors",
    "uvloop",
    *_WEBHOOKS,
)
MODULES: dict[str, tuple[str, ...]] = {  # of the extras that whole commands or formats need
    "webhooks": _WEBHOOKS,
    "worker": _WORKER,
    "gateway": ("fastapi", "fastapi_offline", "python_multipart", "uvicorn", *_WEBHOOKS),
    "mcp": ("mcp", "mcp_types", "uvicorn"),
    "train": (*_WORKER, "gensim", "matplotlib", "pycocoevalcap", "torchvision"),
    "monitor": ("flower",),
    "heif": ("pillow_heif",),
    "jxl": ("pillow_jxl",),
    "hf": (*_WORKER, "accelerate", "diffusers", "huggingface_hub", "torchvision", "transformers"),
}


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed, without importing any."""
    return [module for module in MODULES[extra] if find_spec(module) is None]


def is_installed(extra: str) -> bool:
    """Return whether all modules of an extra are installed."""
    return not missing(extra)


def remedy(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raise `ExtraMissing` if the extra that `what` needs is not installed."""
    if lacking := missing(extra):
        raise ExtraMissing(f"{what} needs {lacking[0]}, which is not installed: {remedy(extra)}")
