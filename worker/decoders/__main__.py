"""A process that decodes pictures for a worker: python -P -m worker.decoders PARENT MEMORY"""

from crossmodal.vision.decode import PictureFile
from worker.decoders.program import run

run(PictureFile)
