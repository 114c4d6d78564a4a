"""The public names. A change of this list changes the interface and needs a line in CHANGELOG."""

import importlib

import pytest

PUBLIC = {
    "seqnets": """
        LSTM GRU RNN OriginalGRU PeepholeLSTM CoupledLSTM NoForgetLSTM
        LSTMCell GRUCell RNNCell OriginalGRUCell PeepholeLSTMCell CoupledLSTMCell NoForgetLSTMCell
        TorchLike TorchLikeCell Cell GatedCell Recurrent Bidirectional DeepRNN Stream Truncated
        Reversed DeepOutput Hierarchical ConvFront1d ConvFront2d Fronted Video
        unroll explain cells engine errors layers
    """,
    "seqnets.cells": """
        Cell GatedCell MemoryCell Wrapper CellOption optioned
        RNNCell IRNNCell IndRNNCell AntisymmetricRNNCell GatedAntisymmetricRNNCell ExpRNNCell
        FastRNNCell FastGRNNCell CoRNNCell ClockworkRNNCell RecurrentHighwayCell CfCCell LTCCell
        GRUCell OriginalGRUCell MGUCell LightGRUCell UGRNNCell MUT1Cell MUT2Cell MUT3Cell
        LSTMCell PeepholeLSTMCell CoupledLSTMCell NoForgetLSTMCell NIGLSTMCell NFGLSTMCell
        NOGLSTMCell NIAFLSTMCell NOAFLSTMCell CIFGLSTMCell FGRLSTMCell MultiplicativeLSTMCell
        JANETCell PhasedLSTMCell SLSTMCell ConvLSTMCell PeepholeConvLSTMCell ConvGRUCell
        MinGRUCell MinLSTMCell SRUCell PeepholeSRUCell QRNNCell FPoolQRNNCell IFOPoolQRNNCell
        MatrixMemoryCell Access MLSTMCell RetentionCell LinearAttentionCell GatedLinearAttentionCell
        DeltaNetCell GatedDeltaNetCell KimiDeltaAttentionCell HGRN2Cell SSDCell RWKV6Cell RWKV7Cell
        LRUCell HGRNCell RGLRUCell S4DCell S5Cell S6Cell LonghornCell TRNNCell TGRUCell TLSTMCell
        RANCell ATRCell CFNCell MinimalRNNCell STARCell LightRUCell BRCCell NBRCCell LEMCell
        UnICORNNCell SCRNCell LipschitzRNNCell NASCell LMUCell WMCLSTMCell IntersectionRNNCell
        SGUCell DSGUCell ResidualLSTMCell LinOSSCell NCPCell MassConservingLSTMCell RWKV4Cell
        DeltaProductCell ONLSTMCell RRUCell
        SpikingCell LICell LIFCell RLIFCell CubaLIFCell ALIFCell
        LeakyRNNCell CTRNNCell dale reservoir block_diagonal GRUDCell
        Zoneout RecurrentDropout VariationalDropout InputDropout weight_drop orthogonal
        LayerNorm Activations AllStates ClipState LearnedState initialize chrono
        Mogrifier DeepTransition Dilated Clockwork
    """,
    "seqnets.engine": "unroll explain Explanation BACKENDS runs",
    "seqnets.layers": """
        Recurrent Bidirectional DeepRNN Stream Truncated CellFactory detach map_state
        Reversed DeepOutput Hierarchical ConvFront1d ConvFront2d Fronted Video LockedDropout
        Linear Watched WatchedLayer watch watch_layers names_of_calls Explanations explain
        FixedPoints fixed_points gradient_flow RTRL SnAp1 EProp
    """,
    "seqnets.conversion": """
        to_torch from_torch to_keras from_keras to_flax from_flax to_onnx from_onnx
        read write difference FORMATS Format AbsentError
    """,
    "seqnets.testing": "check_cell check_layer check_backend one_unit step",
    "seqnets.benchmarking": """
        PASSES Case Limit Measured Report Row Settings Verdict cases_of judge markdown measure plot
    """,
    "seqnets.insight": "Sound new_figure draw_states draw_units draw_fixed_points",
    "seqnets.models": """
        LanguageModel SequenceClassifier SequenceRegressor SequenceTagger Encoder Head
        SoftmaxHead FusedSoftmax AdaptiveSoftmax DroppedEmbedding
        SequenceToSequence Decoder Decoded Attention BahdanauAttention LuongAttention
        beam_search greedy
        Transcriber ctc_loss best_path prefix_beam_search
        ConditionalRandomField WordEmbedding
        VideoClassifier FramePredictor
        Forecaster Direct Recursive EncoderDecoder Parallel
        NumberHead PointHead GaussianHead NegativeBinomialHead QuantileHead
    """,
    "seqnets.datasets.augmentation": """
        ValueAugmentation TimeAugmentation SpecAugment Noise Scale Stretch Crop
    """,
    "seqnets.training": """
        SequenceModule Objective Outcome Row Classification Forecasting FramePrediction
        LanguageModelling Polyphony Regression Tagging Transcription Transduction
        Cosine DelayedExponential NonMonotonicASGD
        AtomicCheckpointIO load_checkpoint load_weights save_checkpoint export
    """,
    "seqnets.training.callbacks": """
        CUDAGraphs Checkpoints DivergenceGuard Dynamics EarlyStopping GradientFlow Hyperparameters
        ModelCard ModelGraph
        Monitor MovingAverage MusicSamples Pictures Progress Pruning RateByLength StopOnSignal
        TextSamples
    """,
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_these(module):
    found = importlib.import_module(module)

    assert sorted(found.__all__) == sorted(PUBLIC[module].split())
    assert all(hasattr(found, name) for name in found.__all__)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module):
    found = importlib.import_module(module)
    things = {name: getattr(found, name) for name in found.__all__}

    assert not [n for n, thing in things.items() if callable(thing) and not thing.__doc__]
