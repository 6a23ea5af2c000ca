"""The public name of the pruner's contract. It is defined in `sadp_bench.pruners.base`."""

from sadp_bench.capture.signals import Signal as Signal
from sadp_bench.core.arrays import Arrays as Arrays
from sadp_bench.core.arrays import is_npy as is_npy
from sadp_bench.core.arrays import is_npz as is_npz
from sadp_bench.core.arrays import single as single
from sadp_bench.core.arrays import unpacked as unpacked
from sadp_bench.core.errors import BadInput as BadInput
from sadp_bench.core.files import hash_fault as hash_fault
from sadp_bench.core.files import read_bytes as read_bytes
from sadp_bench.pruners.base import KeepAll as KeepAll
from sadp_bench.pruners.base import Pruner as Pruner
from sadp_bench.pruners.base import WithinBatch as WithinBatch
from sadp_bench.pruners.exchange import Candidates as Candidates
from sadp_bench.pruners.exchange import Observation as Observation
from sadp_bench.pruners.exchange import ScoringContext as ScoringContext
from sadp_bench.pruners.exchange import Selection as Selection
from sadp_bench.pruners.exchange import Survey as Survey
from sadp_bench.pruners.exchange import unweighted as unweighted
