"""The model host: the process that holds torch and the models of one folder.

python -P -m worker.host --socket PATH --device cpu|cuda
"""

from worker.host.models import load
from worker.host.program import run

run(load)
