"""Real clusters: a foreign one, one that is not there, and losses."""

from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from alloop.campaign import Campaign
from alloop.core.errors import InputError
from alloop.loop.cluster import ClusterPlan, cores, open_pool
from tests.conftest import fingerprint, fingerprint_of, write_toy


def test_a_campaign_runs_on_a_cluster_of_the_users_and_leaves_it_running(
    tmp_path: Path,
) -> None:
    alone = write_toy(tmp_path / "alone")
    Campaign.from_yaml(alone).run()
    settings = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **settings) as cluster,
        Client(cluster) as client,
    ):
        campaign = Campaign.from_yaml(write_toy(tmp_path / "theirs"))
        assert campaign.run(client=client).exit_code == 0
        assert client.submit(sum, [1, 2]).result() == 3
        address = {"kind": "address", "address": cluster.scheduler_address}
        again = Campaign.from_yaml(write_toy(tmp_path / "by_address", cluster=address))
        assert again.run().exit_code == 0
    expected = fingerprint_of(alone.with_name("toy.zarr"))
    assert fingerprint(campaign.history()) == expected
    assert fingerprint(again.history()) == expected


def test_a_scheduler_that_is_not_there_is_named_in_one_sentence(tmp_path: Path) -> None:
    setup = Campaign.from_yaml(write_toy(tmp_path)).setup
    plan = ClusterPlan("address", address="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9") as refused:
        open_pool(plan, setup.kit)
    assert "\n" not in str(refused.value)
    assert cores() >= 1
