"""The families of models that export is tested with, and measured with for ``docs/models.md``.

Read ``family`` first, then any module: one family, or a few that share their code.
"""

from .char_rnn import CHAR_GRU, CHAR_LSTM
from .char_transformer import CHAR_TRANSFORMER_TIED, CHAR_TRANSFORMER_UNTIED, TRANSFORMER_10M
from .dense import MLP
from .family import Batch, Family
from .lenet import LENET
from .matrix_factorisation import MATRIX_FACTORISATION
from .mobilenet import MOBILENET_BATCHNORM, MOBILENET_GROUPNORM, MOBILENET_V2_224
from .normalised_cnn import CNN_BATCHNORM
from .resnet import RESNET8_GROUPNORM
from .sensor_cnn import SENSOR_CNN
from .transposed_cnn import TRANSPOSED_CNN

__all__ = ["FAMILIES", "Batch", "Family"]

# In the order of the table.
_ALL = (
    MLP,
    LENET,
    CNN_BATCHNORM,
    MOBILENET_BATCHNORM,
    MOBILENET_GROUPNORM,
    RESNET8_GROUPNORM,
    TRANSPOSED_CNN,
    SENSOR_CNN,
    CHAR_GRU,
    CHAR_LSTM,
    CHAR_TRANSFORMER_TIED,
    CHAR_TRANSFORMER_UNTIED,
    MATRIX_FACTORISATION,
    MOBILENET_V2_224,
    TRANSFORMER_10M,
)
FAMILIES = {family.name: family for family in _ALL}
