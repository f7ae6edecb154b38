"""What is used of the insides of Ray and DeepSpeed: each by name, for the day of an upgrade."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest
from ray.train import FailureConfig

from pipelines.cluster_view.ray_private import AUTHENTICATION_LOGGER
from pipelines.train.driver.ray_train_private import ElasticPolicy, FailurePolicy, Trainer
from pipelines.train.engine.deepspeed_private import import_deepspeed
from tests.conftest import ROOT

#: The files that may touch insides, and of whom. ``cluster`` may import nothing of ``pipelines``.
PLACES = {
    "pipelines/cluster_view/ray_private.py": "ray",
    "pipelines/train/driver/ray_train_private.py": "ray",
    "cluster/local/own_nodes.py": "ray",
    "cluster/check/ray_file.py": "ray",
    "pipelines/train/engine/deepspeed_private.py": "deepspeed",
}
#: Module, the name in it, and the parameters that are counted on; ``None``: only the name.
NAMES = [
    ("torch._C._distributed_c10d", "_dump_fr_trace_json", None),
    ("torch._C._distributed_c10d", "_dump_nccl_trace_json", None),
    ("torch.cuda.memory", "_record_memory_history", ("enabled", "max_entries")),
    ("torch.cuda.memory", "_dump_snapshot", ("filename",)),
    ("torch._dynamo", "list_backends", ("exclude_tags",)),
    ("torch._dynamo.utils", "counters", None),
    ("torch._dynamo.utils", "compilation_time_metrics", None),
    ("torch._inductor.cpp_builder", "get_cpp_compiler", ()),
    ("torch._inductor.exc", "InvalidCxxCompiler", None),
    ("torch.utils._triton", "has_triton", ()),
    ("ray._raylet", "GcsClient", None),
    ("ray._raylet", "InnerGcsClient.get_cluster_status", None),
    ("ray.core.generated.autoscaler_pb2", "GetClusterStatusReply.ParseFromString", None),
    ("ray._private.state", "state.get_draining_nodes", ()),
    ("ray._private.state", "actors", ("job_id",)),
    ("ray._private.authentication.authentication_token_setup", "logger", None),
    ("ray.tune.execution.class_cache", "ENV_VARS_TO_PROPAGATE", None),
    ("ray.autoscaler._private.util", "prepare_config", ("config",)),
    ("ray.autoscaler._private.util", "validate_config", ("config",)),
    ("ray.autoscaler._private.fake_multi_node.node_provider", "FAKE_HEAD_NODE_ID", None),
    ("ray.autoscaler._private.fake_multi_node.node_provider", "FakeMultiNodeProvider", None),
    (
        "ray.train.v2._internal.callbacks.placement_group_callback",
        "PlacementGroupCleanerCallback",
        None,
    ),
    ("ray.train.torch", "TorchTrainer._register_sigint_handler", ("controller",)),
    ("ray.train.torch", "TorchTrainer._initialize_and_run_controller", ("controller_init_kwargs",)),
    ("ray.train.torch", "TorchTrainer._create_default_callbacks", ()),
    (
        "ray.train.v2._internal.execution.scaling_policy.elastic",
        "ElasticScalingPolicy._count_possible_workers",
        ("reserved_resources",),
    ),
    (
        "ray.train.v2._internal.execution.failure_handling",
        "DefaultFailurePolicy.make_decision",
        ("training_failed_error",),
    ),
    ("ray.train.v2._internal.execution.controller", "TrainController.__init__", ("failure_policy",)),
    ("ray.train.v2._internal.execution.controller", "TrainController.__init__", ("scaling_policy",)),
    ("ray.train.v2._internal.execution.controller", "TrainController.abort", ()),
    (
        "ray.train.v2._internal.execution.callback",
        "ControllerCallback.on_controller_start_worker_group",
        ("scaling_config", "num_workers"),
    ),
    ("ray.train.v2._internal.execution.scaling_policy", "NoopDecision", ()),
    ("ray.train.v2._internal.execution.scaling_policy", "ResizeDecision", None),
    (
        "ray.train.v2._internal.execution.scaling_policy.elastic",
        "ElasticScalingPolicy.make_decision_for_non_running_worker_group",
        (),
    ),
    (
        "ray.train.v2._internal.execution.scaling_policy.elastic",
        "ElasticScalingPolicy.make_decision_for_running_worker_group",
        ("worker_group_state", "worker_group_status"),
    ),
    ("ray.train.v2.api.exceptions", "WorkerGroupError", None),
    ("deepspeed.comm.torch", "build_shm_op", ()),
    ("deepspeed.runtime.zero.muon.muon_optimizer", "MuonWithAuxAdam", None),
    ("deepspeed.runtime.engine", "DeepSpeedEngine.zero_grad", ()),
    ("deepspeed.runtime.zero.stage_1_and_2", "DeepSpeedZeroOptimizer.update_lp_params", ()),
    ("deepspeed.runtime.zero.stage3", "DeepSpeedZeroOptimizer_Stage3.get_param_id", ("param",)),
    ("deepspeed.runtime.zero.stage3", "DeepSpeedZeroOptimizer_Stage3.checkpoint_event_prologue", ()),
    ("deepspeed.runtime.zero.stage3", "DeepSpeedZeroOptimizer_Stage3.checkpoint_event_epilogue", ()),
    (
        "deepspeed.runtime.zero.stage3",
        "DeepSpeedZeroOptimizer_Stage3._reassign_or_swap_out_partitioned_parameters",
        None,
    ),
    ("deepspeed.utils.tensor_fragment", "fragment_address", ("numel", "start")),
]
#: Module, and an attribute that its objects are given.
ATTRIBUTES = [
    ("ray.train.v2._internal.execution.failure_handling.default", "self._worker_group_failures"),
    ("ray.train.v2._internal.execution.scaling_policy.elastic", "self._latest_monitor_time"),
    ("deepspeed.runtime.engine", "self.micro_steps"),
    ("deepspeed.runtime.zero.stage_1_and_2", "self.single_partition_of_fp32_groups"),
    ("deepspeed.runtime.bf16_optimizer", "self.fp32_groups_flat_partition"),
    ("deepspeed.runtime.zero.stage3", "self.grad_position"),
    ("deepspeed.runtime.zero.stage3", "self.fp32_partitioned_groups_flat"),
    ("deepspeed.runtime.zero.partition_parameters", "param.convert_to_zero_parameters"),
    ("deepspeed.runtime.zero.partition_parameters", "ds_shape"),
    ("deepspeed.runtime.zero.partition_parameters", "ds_numel"),
    ("deepspeed.utils.tensor_fragment", "_hp_mapping"),
    ("deepspeed.utils.tensor_fragment", "lp_fragment_address"),
    ("deepspeed.utils.tensor_fragment", "hp_fragment_address"),
    ("deepspeed.utils.tensor_fragment", "param_group_index"),
]

#: Of attributes whose names are DeepSpeed's own.
_PREFIXES = ("_hp_", "hp_fragment", "lp_fragment", "fp32_", "ds_")


@pytest.fixture(scope="module", autouse=True)
def deepspeed():
    import_deepspeed()


def found(module, name):
    # ``deepspeed.comm.torch`` is another module by import.
    there = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        there = getattr(there, part)
    return there


@pytest.mark.parametrize(("module", "name", "takes"), NAMES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_name_is_there_and_takes_what_it_is_given(module, name, takes):
    there = found(module, name)
    if takes is not None:
        parameters = [p for p in inspect.signature(there).parameters.values() if p.name != "self"]
        assert set(takes) <= {p.name for p in parameters}
        needed = {p.name for p in parameters if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD}
        assert name.endswith("__init__") or needed <= set(takes)


@pytest.mark.parametrize(("module", "name"), ATTRIBUTES)
def test_an_attribute_is_still_used(module, name):
    assert name in inspect.getsource(importlib.import_module(module))


def test_our_changes_of_ray_train_override_what_is_there():
    for ours in (FailurePolicy, Trainer, ElasticPolicy):
        theirs = ours.__mro__[1]
        for name in vars(ours):
            if name.startswith("_") and not name.startswith("__") and callable(getattr(ours, name)):
                assert callable(getattr(theirs, name, None)), f"{theirs.__name__} has no {name} any more"
    assert found(AUTHENTICATION_LOGGER, "logger").name == AUTHENTICATION_LOGGER
    policy = FailurePolicy(FailureConfig(max_failures=1))
    assert policy._worker_group_failures == 0


def test_insides_are_touched_in_these_files_alone():
    touching = {}
    for folder in ("unigeoseg", "pipelines", "jobs", "cluster"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if whose := insides(path):
                touching[str(path.relative_to(ROOT))] = whose
    assert touching == {name: {whose} for name, whose in PLACES.items()}


def insides(path: Path) -> set[str]:
    """Libraries of whose modules with an underscore, or of whose objects' insides, a file speaks."""
    whose = set()
    known = {name.rpartition(".")[2] for _, name in ATTRIBUTES if any(p in name for p in _PREFIXES)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Attribute):
            modules = [ast.unparse(node)]
            if node.attr in known:
                whose.add("deepspeed")
        for module in modules:
            top, *rest = module.split(".")
            if top in ("ray", "deepspeed") and any(part.startswith("_") for part in rest):
                whose.add(top)
    return whose
