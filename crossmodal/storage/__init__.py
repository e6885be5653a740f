"""Bytes in an object store, reached with obstore: folders, S3, Google Cloud, Azure, memory.

Keys: `inputs/<aa>/<sha256>` for uploaded pictures, `results/<job>/…` for what jobs made, and
`previews/<job>/…` for what running ones have drawn so far.
"""

from crossmodal.storage.store import Storage, StoredBlob, is_folder, open_storage

__all__ = ["Storage", "StoredBlob", "is_folder", "open_storage"]
