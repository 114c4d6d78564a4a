"""Cells: one time step of a recurrence each, written as in its paper."""

from seqnets.cells.adaptive import ALIFCell
from seqnets.cells.additive import (
    ATRCell,
    CFNCell,
    LightRUCell,
    MinimalRNNCell,
    RANCell,
    STARCell,
)
from seqnets.cells.antisymmetric import (
    AntisymmetricRNNCell,
    GatedAntisymmetricRNNCell,
    LipschitzRNNCell,
)
from seqnets.cells.base import Cell
from seqnets.cells.bistable import BRCCell, NBRCCell
from seqnets.cells.block_diagonal import block_diagonal
from seqnets.cells.circuit import NCPCell
from seqnets.cells.clockwork import Clockwork, ClockworkRNNCell
from seqnets.cells.composite import DeepTransition, Dilated, Mogrifier
from seqnets.cells.continuous import CfCCell, LTCCell
from seqnets.cells.convolutional import ConvGRUCell, ConvLSTMCell, PeepholeConvLSTMCell
from seqnets.cells.dale import dale
from seqnets.cells.delta import (
    DeltaNetCell,
    DeltaProductCell,
    GatedDeltaNetCell,
    KimiDeltaAttentionCell,
)
from seqnets.cells.exponential import SLSTMCell
from seqnets.cells.fast import FastGRNNCell, FastRNNCell
from seqnets.cells.gated import GatedCell
from seqnets.cells.gru import (
    GRUCell,
    LightGRUCell,
    MGUCell,
    MUT1Cell,
    MUT2Cell,
    MUT3Cell,
    OriginalGRUCell,
    UGRNNCell,
)
from seqnets.cells.hgrn import HGRN2Cell, HGRNCell
from seqnets.cells.highway import IntersectionRNNCell, RecurrentHighwayCell
from seqnets.cells.leaky import CTRNNCell, LeakyRNNCell
from seqnets.cells.lem import LEMCell
from seqnets.cells.linear_attention import GatedLinearAttentionCell, LinearAttentionCell
from seqnets.cells.linoss import LinOSSCell
from seqnets.cells.lmu import LMUCell
from seqnets.cells.lru import LRUCell
from seqnets.cells.lstm import (
    CoupledLSTMCell,
    JANETCell,
    LSTMCell,
    MemoryCell,
    MultiplicativeLSTMCell,
    NoForgetLSTMCell,
    PeepholeLSTMCell,
    ResidualLSTMCell,
    WMCLSTMCell,
)
from seqnets.cells.mass_conserving import MassConservingLSTMCell
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell
from seqnets.cells.minimal import MinGRUCell, MinLSTMCell
from seqnets.cells.missing import GRUDCell
from seqnets.cells.mlstm import MLSTMCell
from seqnets.cells.nas import NASCell
from seqnets.cells.odyssey import (
    CIFGLSTMCell,
    FGRLSTMCell,
    NFGLSTMCell,
    NIAFLSTMCell,
    NIGLSTMCell,
    NOAFLSTMCell,
    NOGLSTMCell,
)
from seqnets.cells.options import Activations, AllStates, ClipState, LayerNorm, LearnedState
from seqnets.cells.ordered import ONLSTMCell
from seqnets.cells.orthogonal import ExpRNNCell, orthogonal
from seqnets.cells.oscillator import CoRNNCell, UnICORNNCell
from seqnets.cells.phased import PhasedLSTMCell
from seqnets.cells.qrnn import FPoolQRNNCell, IFOPoolQRNNCell, QRNNCell
from seqnets.cells.regularizers import (
    InputDropout,
    RecurrentDropout,
    VariationalDropout,
    Zoneout,
    weight_drop,
)
from seqnets.cells.reservoir import reservoir
from seqnets.cells.residual import RRUCell
from seqnets.cells.retention import RetentionCell
from seqnets.cells.rg_lru import RGLRUCell
from seqnets.cells.rnn import IndRNNCell, IRNNCell, RNNCell
from seqnets.cells.rwkv import RWKV4Cell, RWKV6Cell, RWKV7Cell
from seqnets.cells.s4d import S4DCell
from seqnets.cells.scrn import SCRNCell
from seqnets.cells.selective import LonghornCell, S6Cell
from seqnets.cells.simple_gated import DSGUCell, SGUCell
from seqnets.cells.spiking import CubaLIFCell, LICell, LIFCell, RLIFCell, SpikingCell
from seqnets.cells.sru import PeepholeSRUCell, SRUCell
from seqnets.cells.ssd import SSDCell
from seqnets.cells.starting import chrono, initialize
from seqnets.cells.state_space import S5Cell
from seqnets.cells.strongly_typed import TGRUCell, TLSTMCell, TRNNCell
from seqnets.cells.wrapper import CellOption, Wrapper, optioned

__all__ = [
    "ALIFCell",
    "ATRCell",
    "Access",
    "Activations",
    "AllStates",
    "AntisymmetricRNNCell",
    "BRCCell",
    "CFNCell",
    "CIFGLSTMCell",
    "CTRNNCell",
    "Cell",
    "CellOption",
    "CfCCell",
    "ClipState",
    "Clockwork",
    "ClockworkRNNCell",
    "CoRNNCell",
    "ConvGRUCell",
    "ConvLSTMCell",
    "CoupledLSTMCell",
    "CubaLIFCell",
    "DSGUCell",
    "DeepTransition",
    "DeltaNetCell",
    "DeltaProductCell",
    "Dilated",
    "ExpRNNCell",
    "FGRLSTMCell",
    "FPoolQRNNCell",
    "FastGRNNCell",
    "FastRNNCell",
    "GRUCell",
    "GRUDCell",
    "GatedAntisymmetricRNNCell",
    "GatedCell",
    "GatedDeltaNetCell",
    "GatedLinearAttentionCell",
    "HGRN2Cell",
    "HGRNCell",
    "IFOPoolQRNNCell",
    "IRNNCell",
    "IndRNNCell",
    "InputDropout",
    "IntersectionRNNCell",
    "JANETCell",
    "KimiDeltaAttentionCell",
    "LEMCell",
    "LICell",
    "LIFCell",
    "LMUCell",
    "LRUCell",
    "LSTMCell",
    "LTCCell",
    "LayerNorm",
    "LeakyRNNCell",
    "LearnedState",
    "LightGRUCell",
    "LightRUCell",
    "LinOSSCell",
    "LinearAttentionCell",
    "LipschitzRNNCell",
    "LonghornCell",
    "MGUCell",
    "MLSTMCell",
    "MUT1Cell",
    "MUT2Cell",
    "MUT3Cell",
    "MassConservingLSTMCell",
    "MatrixMemoryCell",
    "MemoryCell",
    "MinGRUCell",
    "MinLSTMCell",
    "MinimalRNNCell",
    "Mogrifier",
    "MultiplicativeLSTMCell",
    "NASCell",
    "NBRCCell",
    "NCPCell",
    "NFGLSTMCell",
    "NIAFLSTMCell",
    "NIGLSTMCell",
    "NOAFLSTMCell",
    "NOGLSTMCell",
    "NoForgetLSTMCell",
    "ONLSTMCell",
    "OriginalGRUCell",
    "PeepholeConvLSTMCell",
    "PeepholeLSTMCell",
    "PeepholeSRUCell",
    "PhasedLSTMCell",
    "QRNNCell",
    "RANCell",
    "RGLRUCell",
    "RLIFCell",
    "RNNCell",
    "RRUCell",
    "RWKV4Cell",
    "RWKV6Cell",
    "RWKV7Cell",
    "RecurrentDropout",
    "RecurrentHighwayCell",
    "ResidualLSTMCell",
    "RetentionCell",
    "S4DCell",
    "S5Cell",
    "S6Cell",
    "SCRNCell",
    "SGUCell",
    "SLSTMCell",
    "SRUCell",
    "SSDCell",
    "STARCell",
    "SpikingCell",
    "TGRUCell",
    "TLSTMCell",
    "TRNNCell",
    "UGRNNCell",
    "UnICORNNCell",
    "VariationalDropout",
    "WMCLSTMCell",
    "Wrapper",
    "Zoneout",
    "block_diagonal",
    "chrono",
    "dale",
    "initialize",
    "optioned",
    "orthogonal",
    "reservoir",
    "weight_drop",
]
