"""TIFF files whose samples Pillow misreads: corrected, or refused."""

from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import InvalidImage
from crossmodal.vision.formats import not_supported
from crossmodal.vision.media import REMEDY
from crossmodal.vision.pixels import Samples

# Pillow's own reader of uncompressed files misreads 16-bit planes; libtiff does not.
TiffImagePlugin.READ_LIBTIFF = True

BITS, PHOTOMETRIC, PLANES, COLORMAP, TILE_SIDES, SAMPLE_FORMAT = 258, 262, 284, 320, (322, 323), 339
WHITE_IS_ZERO, IN_PLANES, SIGNED = 0, 2, 2


def tile_size(image: Image.Image) -> tuple[int, int]:
    """Return a TIFF's tile width and height: a tile is decoded whole, even beyond the picture."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    width, height = (int(image.tag_v2.get(tag, 0)) for tag in TILE_SIDES)
    return width, height


def amend(image: TiffImageFile) -> Samples:
    """Correct how an image that is not yet loaded will be read, and describe its samples.

    Raises `InvalidImage` for samples without a defined black and white.
    """
    bits, form = _first(image, BITS), _first(image, SAMPLE_FORMAT)
    if form == SIGNED or image.mode == "I":
        sign = "signed " if form == SIGNED else ""
        raise InvalidImage(
            f"the image is a TIFF file with {sign}samples of {bits} bits, which are not "
            f"supported: {REMEDY}"
        )
    if image.mode in ("LA", "LAB") and _first(image, PLANES) == IN_PLANES:
        raise not_supported("image/tiff")  # Pillow reads these wrongly
    if image.mode == "P" and max(image.tag_v2[COLORMAP]) < 256:
        # Colors should have 16 bits, but some programs write 8.
        image.palette = ImagePalette.raw("RGB;L", image.tag_v2[COLORMAP])
    if image.mode == "F":
        image.tile = [_as_native(tile) for tile in image.tile]
    return Samples(bits, _first(image, PHOTOMETRIC) == WHITE_IS_ZERO)


def _as_native(tile: ImageFile._Tile) -> ImageFile._Tile:
    """Read floats in native byte order, as libtiff returns them."""
    return tile._replace(args=("F;32NF", *tile.args[1:])) if isinstance(tile.args, tuple) else tile


def _first(image: TiffImageFile, tag: int) -> int:
    value = image.tag_v2.get(tag, 1)
    return int(value[0] if isinstance(value, tuple) else value)
