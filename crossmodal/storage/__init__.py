"""Bytes in an object store, reached with obstore: folders, S3, Google Cloud, Azure, memory.

Keys: `inputs/<aa>/<sha256>` for uploaded pictures, `results/<job>/…` for what jobs made.
"""

from crossmodal.storage.store import Storage, StoredBlob, is_folder, open_storage

__all__ = ["Storage", "StoredBlob", "is_folder", "open_storage"]
