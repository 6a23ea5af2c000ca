from sadp_bench.errors import BadInput as BadInput
from sadp_bench.own_loop import PrunedSampler as PrunedSampler
from sadp_bench.own_loop import with_index as with_index
from sadp_bench.own_scores import score_with as score_with
from sadp_bench.pruner import Observation as Observation
from sadp_bench.pruner import Pruner as Pruner
from sadp_bench.pruner import Selection as Selection
from sadp_bench.pruners.sadp import SADP as SADP
from sadp_bench.watching import watch as watch

__version__: str
