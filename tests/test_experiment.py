"""An experiment's schema: what is filled in, what is refused, and in which words."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pocketfleet import Experiment
from pocketfleet.errors import InputError
from pocketfleet.experiment import packaged_experiments, parsed_settings

LEAST: dict[str, Any] = {"task": {"name": "boston"}, "training": {"learning_rate": 0.1}}
OVERRIDES = 'fleet.overrides=[{devices=[0, 2], battery_ratio=0.5}, {devices="all", metered=true}]'


def least() -> Experiment:
    return Experiment.from_table(LEAST)


def refused(*settings: str) -> str:
    with pytest.raises(InputError) as told:
        least().with_settings(*settings)
    return str(told.value)


def test_defaults_of_what_is_left_out() -> None:
    found = least()
    assert found.seed == 1
    assert (found.task.name, found.task.options, found.task.bundle) == ("boston", {}, "")
    assert (found.partition.kind, found.partition.alpha, found.partition.examples_per_device) == ("iid", 0.3, 0)
    assert (found.fleet.devices, found.fleet.mix, found.fleet.program) == (100, "global-2024", "executorch")
    assert (found.fleet.network, found.fleet.availability, found.fleet.overrides) == ("home-wifi", "always", [])
    assert (found.eligibility.idle, found.eligibility.charging, found.eligibility.unmetered) == (True, True, True)
    assert (found.training.epochs, found.training.steps, found.training.batch_size) == (1, 0, 16)
    assert (found.training.momentum, found.training.weight_decay, found.training.max_norm) == (0.0, 0.0, 0.0)
    assert (found.rounds.count, found.rounds.cohort, found.rounds.over_selection) == (100, 10, 1.3)
    # 30 days.
    assert found.rounds.horizon_s == 30 * 24 * 3600
    assert (found.rounds.deadline_s, found.rounds.interval_s, found.rounds.partial_work) == (600.0, 0.0, "report")
    assert (found.algorithm.name, found.server.optimizer, found.server.learning_rate) == ("fedavg", "sgd", 1.0)
    assert (found.engine.runtime, found.engine.processes, found.engine.checkpoint_share) == ("torch", "auto", 0.05)


@pytest.mark.parametrize(
    ("table", "pattern"),
    [
        ({"training": {"learning_rate": 0.1}}, "mine: task is missing"),
        ({"task": {"name": "boston"}}, "mine: training is missing"),
        ({"task": {}, "training": {}}, r"mine: task\.name is missing; training\.learning_rate is missing"),
    ],
)
def test_what_has_no_default_must_be_given(table: dict[str, Any], pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        Experiment.from_table(table, name="mine")


def test_with_settings_changes_the_keys_and_nothing_else() -> None:
    before = least().with_settings("task.options.split_seed=4")
    after = before.with_settings("fleet.devices=500", "training.learning_rate=1", "task.options.leave_out_b=true")
    assert after.fleet.devices == 500
    assert after.training.learning_rate == 1.0
    assert after.task.options == {"split_seed": 4, "leave_out_b": True}
    # The one it came from is as it was, nested tables too.
    assert before.task.options == {"split_seed": 4}
    assert before.fleet.devices == 100
    restored = after.with_settings("fleet.devices=100", "training.learning_rate=0.1", "task.options={split_seed=4}")
    assert restored == before


def test_the_last_setting_of_a_key_counts() -> None:
    assert least().with_settings("rounds.count=3", "rounds.count=4").rounds.count == 4


def test_the_right_side_is_a_toml_value_or_a_word() -> None:
    settings = ["a.word=dirichlet", 'a.text="3"', "a.number=1e-3", "a.truth=false", "a.list=[1, 2]", " b = x=y "]
    assert parsed_settings(settings) == {
        "a": {"word": "dirichlet", "text": "3", "number": 0.001, "truth": False, "list": [1, 2]},
        "b": "x=y",
    }


@pytest.mark.parametrize("setting", ["rounds", "=3", " =3"])
def test_a_setting_without_key_or_value(setting: str) -> None:
    assert refused(setting) == f"--set takes key=value, such as rounds.count=50, got {setting!r}"


def test_a_setting_below_what_is_no_section() -> None:
    assert refused("seed.x=3") == "--set seed.x=3: seed is no section"


@pytest.mark.parametrize("settings", [(), (OVERRIDES, "seed=7", "task.options={split_seed=3, nested={a=[1, 2]}}")])
@pytest.mark.parametrize("name", ["least", "boston-fleet", "boston-two-phones", "mnist-days", "mnist-fleet"])
def test_toml_and_back(name: str, settings: tuple[str, ...]) -> None:
    # Overrides name devices up to 2: a fleet's size is not looked at before there is one.
    found = (least() if name == "least" else Experiment.load(name)).with_settings(*settings)
    text = found.to_toml()
    assert Experiment.from_toml(text) == found
    assert Experiment.from_toml(text).to_toml() == text
    # Whole: every section and key is written out, but for a mix that draws nothing since phones are named.
    table = tomllib.loads(text)
    assert set(table) == set(Experiment.model_fields)
    for section in set(table) - {"seed"}:
        wanted = set(type(getattr(found, section)).model_fields)
        assert set(table[section]) in (wanted, wanted - {"mix"} if found.fleet.phones else wanted)


def test_overrides_keep_what_is_not_set_as_drawn() -> None:
    some, everyone = least().with_settings(OVERRIDES).fleet.overrides
    assert (some.devices, some.battery_ratio, some.metered) == ([0, 2], 0.5, None)
    assert (everyone.devices, everyone.battery_ratio, everyone.metered) == ("all", None, True)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("rounds.cohrt=3", ["unknown key rounds.cohrt: did you mean 'cohort'? allowed here: policy, count,", "cohort"]),
        ("fleeet.devices=3", ["unknown key fleeet: did you mean 'fleet'? allowed here: seed, task, partition,"]),
        ("engine.zzz=3", ["unknown key engine.zzz: allowed here: runtime, plan, plan_reason, chunk, compile, device,"]),
        ("training.dampening=0.1", ["unknown key training.dampening", "weight_decay, max_norm"]),
        ("training.epochs=many", ["training.epochs should be a valid integer, got 'many'"]),
        ("training.epochs=1.0", ["training.epochs should be a valid integer, got 1.0"]),
        ("training.learning_rate=true", ["training.learning_rate should be a valid number, got True"]),
        ("training.nesterov=1", ["training.nesterov should be a valid boolean, got 1"]),
        ("task.name=3", ["task.name should be a valid string, got 3"]),
        ("fleet.phones=[1]", ["fleet.phones.0 should be a valid string, got 1"]),
        ("fleet=3", ["fleet should be a valid dictionary", "got 3"]),
        ("training.epochs=0", ["training.epochs should be greater than or equal to 1, got 0"]),
        ("training.learning_rate=0.0", ["training.learning_rate should be greater than 0, got 0.0"]),
        ("training.momentum=1.0", ["training.momentum should be less than 1, got 1.0"]),
        ("training.momentum=nan", ["training.momentum", "got nan"]),
        ("training.max_norm=-1.0", ["training.max_norm should be greater than or equal to 0, got -1.0"]),
        ("rounds.over_selection=0.9", ["rounds.over_selection should be greater than or equal to 1, got 0.9"]),
        ("rounds.horizon_s=inf", ["rounds.horizon_s should be a finite number, got inf"]),
        ("rounds.minimum_ratio=1.5", ["rounds.minimum_ratio should be less than or equal to 1, got 1.5"]),
        ("partition.kind=skewed", ["partition.kind should be 'iid', 'dirichlet', 'quantity' or 'natural'", "'skewed'"]),
        ("engine.runtime=jax", ["engine.runtime should be 'torch', 'executorch' or 'onnx', got 'jax'"]),
        ("fleet.program=torch", ["fleet.program should be 'executorch' or 'onnx', got 'torch'"]),
    ],
)
def test_what_is_refused_is_told_by_its_key_and_what_is_allowed(setting: str, words: list[str]) -> None:
    text = refused(setting)
    for part in words:
        assert part in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "{devices=[0], batery_ratio=1.0}",
            "unknown key fleet.overrides.1.batery_ratio: did you mean 'battery_ratio'? allowed here: devices, peak_flo",
        ),
        ("{battery_ratio=0.5}", "fleet.overrides.1.devices is missing"),
        (
            "{devices=[0], battery_ratio=2.0}",
            "fleet.overrides.1.battery_ratio should be less than or equal to 1, got 2",
        ),
        ("{devices=[0], metered=1}", "fleet.overrides.1.metered should be a valid boolean, got 1"),
        ("{devices=some}", "fleet.overrides should be a valid list, got"),
        ('{devices="some"}', "fleet.overrides.1.devices"),
        ("{devices=[-1]}", "should be greater than or equal to 0, got -1"),
        ("3", "fleet.overrides.1 should be a valid dictionary"),
    ],
)
def test_what_is_refused_of_an_override_is_told_by_its_key(override: str, words: str) -> None:
    assert words in refused(f'fleet.overrides=[{{devices="all"}}, {override}]')


def test_every_problem_is_told_at_once() -> None:
    text = refused("rounds.count=0", "fleet.devices=none", "engine.planned=auto")
    assert len(text.split("; ")) == 3
    for key in ("rounds.count", "fleet.devices", "engine.planned"):
        assert key in text


def test_a_cohort_is_not_larger_than_its_fleet() -> None:
    assert "rounds.cohort must be 1..9 (the fleet's size), got 10: lower it or raise fleet.devices" in refused(
        "fleet.devices=9"
    )
    assert least().with_settings("fleet.devices=10").rounds.cohort == 10


@pytest.mark.parametrize("key", ["phones", "names"])
def test_phones_and_names_are_one_a_device(key: str) -> None:
    assert f"fleet.{key} must name one a device (100) or none, got 2" in refused(f'fleet.{key}=["a", "b"]')
    found = Experiment.from_table({**LEAST, "fleet": {"devices": 2, key: ["a", "b"]}, "rounds": {"cohort": 2}})
    assert getattr(found.fleet, key) == ["a", "b"]


def test_nesterov_needs_momentum() -> None:
    assert "training.nesterov needs a training.momentum above 0, got momentum 0" in refused("training.nesterov=true")
    assert least().with_settings("training.nesterov=true", "training.momentum=0.1").training.nesterov


def test_an_experiment_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        least().training.epochs = 3  # type: ignore[misc]


def test_every_packaged_experiment_loads_and_is_described() -> None:
    described = packaged_experiments()
    assert list(described) == [
        *("boston-fleet", "boston-two-phones", "boston-two-phones-private"),
        *("mnist-days", "mnist-fleet", "mnist-million"),
        *("shakespeare-roles", "synthetic-skew", "watch-ten"),
    ]
    for name, description in described.items():
        assert len(description) > 20
        assert not description.startswith("#")
        assert Experiment.load(name).task.name == name.split("-", maxsplit=1)[0]
        assert Experiment.load(name, ["seed=9"]).seed == 9


def test_a_file_is_loaded_by_its_path_and_named_in_its_problems(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[task]\nname = "boston"\n[training]\nlearning_rate = 0.1\n')
    assert Experiment.load(path) == Experiment.load(str(path)) == least()
    with pytest.raises(InputError, match=r"mine\.toml: training\.epochs should be"):
        Experiment.load(path, ["training.epochs=0"])
    path.write_text("seed = = 1\n")
    with pytest.raises(InputError, match=r"mine\.toml is no TOML file: .*line 1"):
        Experiment.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"cannot read the experiment .*mine\.toml"):
        Experiment.load(path)


def test_no_such_experiment() -> None:
    with pytest.raises(InputError, match=r"no experiment 'mnist-flet': .*boston-fleet.*; did you mean 'mnist-fleet'\?"):
        Experiment.load("mnist-flet")
    with pytest.raises(InputError, match="no experiment 'zzz'") as told:
        Experiment.load("zzz")
    assert "did you mean" not in str(told.value)


def test_phones_can_be_named_afterwards() -> None:
    named = Experiment.load("mnist-fleet").with_settings(
        "fleet.devices=2", "rounds.cohort=2", 'fleet.phones=["Pixel 8", "Pixel 3"]'
    )
    assert named.fleet.phones == ["Pixel 8", "Pixel 3"]
    assert Experiment.from_toml(named.to_toml()) == named


def test_task_options_are_toml_values() -> None:
    with pytest.raises(InputError, match=r"task\.options must hold TOML values"):
        Experiment.from_table(
            {"task": {"name": "boston", "options": {"a": [None]}}, "training": {"learning_rate": 1.0}}
        )


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("fedavg", [], {}),
        ("fedprox", ["algorithm.proximal_mu=0.5"], {"proximal_mu": 0.5}),
        ("fedsgd", [], {}),
        ("scaffold", [], {}),
        ("feddyn", ["algorithm.alpha=0.5"], {"alpha": 0.5}),
        ("ditto", ["algorithm.personal_mu=0.5"], {"personal_mu": 0.5}),
        ("fedper", ['algorithm.private=["6.*"]'], {"private": ["6.*"]}),
        ("mine:make", ["algorithm.options.power=2"], {"power": 2}),
    ],
)
def test_an_algorithm_gets_its_own_keys(name: str, settings: list[str], expected: dict[str, Any]) -> None:
    assert least().with_settings(f"algorithm.name={name}", *settings).algorithm.arguments() == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["algorithm.proximal_mu=0.5"],
            'algorithm.proximal_mu is for algorithm.name "fedprox", which is "fedavg": leave it at 0.01',
        ),
        (
            ["algorithm.name=ditto", "algorithm.alpha=0.5"],
            'algorithm.alpha is for algorithm.name "feddyn", which is "ditto": leave it at 0.01',
        ),
        (
            ["algorithm.name=mine:make", "algorithm.personal_mu=0.5"],
            'algorithm.personal_mu is for algorithm.name "ditto", which is "mine:make": leave it at 1.0',
        ),
        (
            ['algorithm.private=["head.*"]'],
            'algorithm.private is for algorithm.name "fedper", which is "fedavg": leave it at []',
        ),
        (
            ["algorithm.options.power=2"],
            'algorithm.options is for algorithm.name "my_module:make_algorithm", which is "fedavg": leave it at {}',
        ),
        (["algorithm.name=fedper"], 'algorithm.name "fedper" needs algorithm.private, patterns of the weights that'),
        (
            ["algorithm.name=feddyn", "server.learning_rate=0.5"],
            'algorithm.name "feddyn" makes the next model by a rule of its own: leave server.optimizer at "sgd" and '
            'server.learning_rate at 1.0, got "sgd" and 0.5',
        ),
        (
            ["algorithm.name=feddyn", "server.optimizer=adam"],
            'leave server.optimizer at "sgd" and server.learning_rate at 1.0, got "adam" and 1.0',
        ),
        (
            ["algorithm.name=fedsgd", "training.epochs=2"],
            'algorithm.name "fedsgd" is one step over all of a device\'s examples: leave training.epochs at 1, got 2',
        ),
        (["algorithm.name=fedsgd", "training.steps=3"], "leave training.steps at 0, got 3"),
        (["algorithm.name=fedsgd", "training.batch_size=8"], "leave training.batch_size at 16, got 8"),
    ],
)
def test_what_is_another_algorithms_is_refused(settings: list[str], words: str) -> None:
    assert words in refused(*settings)


@pytest.mark.parametrize(
    ("optimizer", "keys"),
    [
        ("sgd", []),
        ("momentum", ["momentum"]),
        ("adam", ["beta1", "beta2", "tau"]),
        ("yogi", ["beta1", "beta2", "tau"]),
        ("adagrad", ["tau"]),
    ],
)
def test_a_server_optimizer_gets_its_own_keys_and_refuses_others(optimizer: str, keys: list[str]) -> None:
    for key in ("momentum", "beta1", "beta2", "tau"):
        settings = (f"server.optimizer={optimizer}", "server.learning_rate=0.25", f"server.{key}=0.5")
        if key in keys:
            found = least().with_settings(*settings).server.arguments()
            assert sorted(found) == sorted(["learning_rate", *keys])
            assert (found["learning_rate"], found[key]) == (0.25, 0.5)
        else:
            text = refused(*settings)
            assert f"server.{key} is for server.optimizer " in text
            assert f', which is "{optimizer}": leave it at ' in text


def test_who_takes_a_servers_key_is_told() -> None:
    assert 'server.tau is for server.optimizer "adam" or "yogi" or "adagrad", which is "sgd": leave it at 0.001' in (
        refused("server.tau=0.5")
    )


RULES = (
    "rule=median",
    "rule=trimmed_mean trim_ratio=0.2",
    "rule=norm_bounded max_norm=2",
    "rule=multi_krum byzantine=3",
)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_aggregation_takes_its_own_key(rule: str) -> None:
    # A cohort of 10 has room for 3 liars: 2 * 3 + 3 = 9.
    changed = least().with_settings(*(f"aggregation.{setting}" for setting in rule.split()))
    assert Experiment.from_toml(changed.to_toml()) == changed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("rule=trimmed_mean", 'aggregation.rule "trimmed_mean" needs aggregation.trim_ratio: set it, such as 0.2'),
        ("rule=norm_bounded", 'aggregation.rule "norm_bounded" needs aggregation.max_norm: set it, such as 1.0'),
        ("rule=multi_krum", 'aggregation.rule "multi_krum" needs aggregation.byzantine: set it, such as 2'),
        (
            "rule=median byzantine=2",
            'aggregation.byzantine is for aggregation.rule "multi_krum", which is "median": leave one out',
        ),
        ("trim_ratio=0.1", 'aggregation.trim_ratio is for aggregation.rule "trimmed_mean", which is "mean": leave one'),
        ("rule=trimmed_mean trim_ratio=0.5", "aggregation.trim_ratio should be less than 0.5, got 0.5"),
        (
            "rule=trimmed_mean trim_ratio=0.09",
            # 1 / 0.09 is 11.1: of twelve reports 0.09 is one.
            "aggregation.trim_ratio 0.09 leaves no report out of a rounds.cohort of 10: raise the ratio, or the cohort "
            "to 12 or more",
        ),
        (
            "rule=multi_krum byzantine=4",
            "aggregation.byzantine 4 needs a rounds.cohort of 11 or more, got 10, which has room for 3: raise the "
            "cohort, or lower byzantine",
        ),
        ("rule=multi_krum byzantine=-1", "aggregation.byzantine should be greater than or equal to 0, got -1"),
        ("rule=krum", "aggregation.rule should be 'mean', 'median', 'trimmed_mean', 'norm_bounded' or 'multi_krum'"),
    ],
)
def test_what_a_rule_of_aggregation_cannot_do_is_told(settings: str, words: str) -> None:
    assert words in refused(*(f"aggregation.{setting}" for setting in settings.split()))


CODECS = (
    "name=quantised bits=8",
    "name=rotation+quantised bits=2 error_feedback=true",
    "name=top_k ratio=0.1",
    "name=rotation+random_k+quantised bits=4 ratio=0.05 error_feedback=true download_bits=8",
    "download_bits=4",
)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_takes_its_own_keys(codec: str) -> None:
    changed = least().with_settings(*(f"codec.{setting}" for setting in codec.split()))
    assert Experiment.from_toml(changed.to_toml()) == changed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("name=zip", 'codec.name must be "lossless", or quantised, random_k, rotation, top_k joined by +'),
        ("name=quantised", 'codec.name "quantised" needs codec.bits: set it, such as to 8'),
        ("bits=8", 'codec.bits says nothing where codec.name is "lossless": leave it out'),
        ("name=quantised bits=3", "codec.bits should be 0, 2, 4 or 8, got 3"),
        ("name=top_k ratio=1.5", "codec.ratio should be less than or equal to 1, got 1.5"),
        ("name=top_k+random_k ratio=0.1", "each would throw away most of what the other keeps"),
        ("download_bits=16", "codec.download_bits should be 0, 2, 4 or 8, got 16"),
    ],
)
def test_what_a_codec_cannot_do_is_told(settings: str, words: str) -> None:
    assert words in refused(*(f"codec.{setting}" for setting in settings.split()))


def test_rounded_weights_and_a_gate_of_releases_are_refused_together() -> None:
    words = "codec.download_bits 8 rounds the weights that devices train from, and release.gate"
    assert words in refused("codec.download_bits=8", 'release={gate="evaluation", evaluation_reports=1}')


def test_attacks_are_tables_of_the_fleet() -> None:
    changed = least().with_settings("fleet.attacks=[{kind='sign_flip', ratio=0.2, scale=5}, {kind='nan', devices=[3]}]")
    flip, nan = changed.fleet.attacks
    assert (flip.kind, flip.ratio, flip.devices, flip.scale) == ("sign_flip", 0.2, [], 5.0)
    assert (nan.kind, nan.ratio, nan.devices, nan.scale) == ("nan", 0.0, [3], 1.0)
    assert Experiment.from_toml(changed.to_toml()) == changed


@pytest.mark.parametrize(
    ("attacks", "words"),
    [
        ("{kind='nan'}", "nan needs either a ratio of all devices, such as 0.2, or devices, such as [0, 3], got ratio"),
        ("{kind='nan', ratio=0.1, devices=[2]}", "needs either a ratio of all devices"),
        ("{kind='nan', ratio=0.1, scale=2}", "fleet.attacks: nan reports no number, got scale 2.0: leave it out"),
        ("{kind='scaled', ratio=0.1}", "fleet.attacks: scaled needs a scale other than 1"),
        ("{kind='sign_flip', ratio=0.1, scale=-2}", "fleet.attacks.0.scale should be greater than 0, got -2"),
        ("{kind='sign_flip', ratio=1.1}", "fleet.attacks.0.ratio should be less than or equal to 1, got 1.1"),
        ("{kind='flip', ratio=0.1}", "fleet.attacks.0.kind should be 'sign_flip', 'scaled', 'label_flip' or 'nan'"),
        ("{ratio=0.1}", "fleet.attacks.0.kind is missing"),
        ("{kind='nan', rato=0.1}", "unknown key fleet.attacks.0.rato: did you mean 'ratio'? allowed here: kind, ratio"),
        ("{kind='nan', devices=[100]}", "fleet.attacks.devices must be 0..99 (the fleet's), got 100"),
        ("{kind='nan', devices=[1]}, {kind='sign_flip', devices=[1]}", "fleet.attacks: device 1 is named twice"),
        (
            "{kind='nan', ratio=0.6}, {kind='sign_flip', ratio=0.5}",
            "fleet.attacks: the ratios must sum to 1 at most, got [0.6, 0.5]",
        ),
    ],
)
def test_what_is_refused_of_an_attack_is_told(attacks: str, words: str) -> None:
    assert words in refused(f"fleet.attacks=[{attacks}]")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["release.tolerance_ratio=0.1"],
            'release.tolerance_ratio is for release.gate "evaluation", which is "none": set the gate, or leave it out',
        ),
        (
            ["release.gate=evaluation", "release.better=higher"],
            'release.better "higher" is of metrics such as an accuracy, and release.metric is "loss", which is better '
            'lower: set release.metric, or leave release.better at "lower"',
        ),
        (["release.gate=evaluation", "release.bound=nan"], "release.bound must be a number, or inf for none, got nan"),
        (
            ["release.gate=evaluation", "release.canary_ratio=0.0", "release.canary_reports=3"],
            "release.canary_reports is for a release.canary_ratio above 0, got 0: leave one out",
        ),
        (
            ["release.gate=evaluation", "release.evaluation_reports=101"],
            "release.evaluation_reports must be 1..100 (the fleet's size), got 101: lower it or raise fleet.devices",
        ),
        (
            ["release.gate=evaluation", "release.canary_ratio=0.05"],
            "release.canary_reports 10 are more than the share has devices: release.canary_ratio 0.05 of 100 are 5; "
            "lower the reports, raise the ratio, or set it to 0 to have no share",
        ),
        (
            ["release.gate=evaluation", "engine.timing_only=true"],
            'release.gate "evaluation" needs models to evaluate, and engine.timing_only trains none: leave one out, '
            "such as by --set release={}",
        ),
        (
            ["release.gate=evaluation", "algorithm.name=fedper", "algorithm.private=['head.*']"],
            'release.gate "evaluation" compares whole models, and under algorithm.name "fedper" a part of each stays '
            "on its device: leave one out",
        ),
    ],
)
def test_a_gate_that_does_not_fit(settings: list[str], words: str) -> None:
    assert refused(*settings).endswith(words)


def test_a_gate_that_fits() -> None:
    found = least().with_settings("release.gate=evaluation", "release.metric=accuracy", "release.better=higher")
    assert (found.release.evaluation_reports, found.release.canary_ratio) == (20, 0.1)
