"""The extras of the distribution: which modules they bring, and what to say without them."""

from importlib.util import find_spec

from crossmodal.errors import ExtraMissing

DISTRIBUTION = "crossmodal-jobs"  # what pip calls us; the packages have other names

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
MODULES: dict[str, tuple[str, ...]] = {  # of extras that whole commands or formats are made of
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
    """The modules of an extra that cannot be imported here; none of them is loaded."""
    return [module for module in MODULES[extra] if find_spec(module) is None]


def is_installed(extra: str) -> bool:
    """Whether all that an extra brings is there."""
    return not missing(extra)


def remedy(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raises `ExtraMissing` where `what` cannot run for want of an extra."""
    if lacking := missing(extra):
        raise ExtraMissing(f"{what} needs {lacking[0]}, which is not installed: {remedy(extra)}")
