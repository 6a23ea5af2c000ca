from sadp_bench.api.reading import export as export
from sadp_bench.api.reading import load as load
from sadp_bench.api.reading import load_model as load_model
from sadp_bench.api.reading import report as report
from sadp_bench.api.reading import scores as scores
from sadp_bench.api.reading import visits as visits
from sadp_bench.api.training import run as run
from sadp_bench.api.training import sweep as sweep
from sadp_bench.backbones.weighted_norm import weighted_batch_norm as weighted_batch_norm
from sadp_bench.backbones.weighted_norm import weighted_statistics as weighted_statistics
from sadp_bench.capture.signals import Signal as Signal
from sadp_bench.core.errors import BadInput as BadInput
from sadp_bench.drop_in.indexed import with_index as with_index
from sadp_bench.drop_in.sampler import PrunedSampler as PrunedSampler
from sadp_bench.drop_in.scores import score_with as score_with
from sadp_bench.drop_in.watch import watch as watch
from sadp_bench.pruners.base import Pruner as Pruner
from sadp_bench.pruners.exchange import Observation as Observation
from sadp_bench.pruners.exchange import Selection as Selection
from sadp_bench.pruners.sadp import SADP as SADP
from sadp_bench.training.loggers.base import LoggedRun as LoggedRun
from sadp_bench.training.loggers.base import Logger as Logger

__version__: str
