"""The arithmetic of the simulation, against cases that are done by hand."""

from dataclasses import fields, replace

import pytest

from bench.simulation import (
    DOCUMENT,
    NODES,
    Costs,
    Limits,
    Load,
    clusters,
    commits_and_rows,
    largest_cluster,
    simulate,
    spacing_s,
    tables,
    watching_nodes,
    with_tables,
)
from holdfast.store.group_commit import MAX_SPACING_S

FREE = Costs(**{field.name: 0 for field in fields(Costs) if field.name != "commit_s"})
ROOMY = Limits(1e9, 1e9, 1e18, 10**9, 1.0)


class TestCommits:
    def test_no_streams_commit_nothing(self) -> None:
        assert commits_and_rows(0, 20, 0.002) == (0, 0)
        assert commits_and_rows(5, 0, 0.002) == (0, 0)

    def test_a_lonely_stream_commits_each_chunk_that_does_not_come_during_a_commit(self) -> None:
        # 10 chunks/s, 2 ms a commit: one in 1 + 0.02 chunks begins one.
        commits, rows = commits_and_rows(1, 10, 0.002)
        assert commits == pytest.approx(10 / 1.02)
        assert rows == pytest.approx(commits)

    def test_many_chunks_share_commits_that_follow_time_only(self) -> None:
        few, _ = commits_and_rows(1000, 20, 0.002)
        many, rows = commits_and_rows(1000, 200, 0.002)
        assert few == pytest.approx(1 / MAX_SPACING_S, rel=0.01)
        assert many == pytest.approx(1 / MAX_SPACING_S, rel=0.001)
        assert rows <= 1000 * many  # a run has one row in a commit

    def test_a_slow_disk_sets_the_pace(self) -> None:
        commits, rows = commits_and_rows(1000, 20, 0.1)
        assert commits == pytest.approx(10, rel=0.01)
        assert rows == pytest.approx(1000 * (1 - 0.999**2000) * 10, rel=0.01)

    @pytest.mark.parametrize("streams", [1, 2, 10, 64, 500, 3000])
    @pytest.mark.parametrize("chunks_per_s", [0.5, 20, 200])
    def test_rows_lie_between_commits_and_chunks(self, streams: int, chunks_per_s: float) -> None:
        commits, rows = commits_and_rows(streams, chunks_per_s, 0.002)
        assert commits <= rows * (1 + 1e-9) <= streams * chunks_per_s * (1 + 1e-6)

    def test_the_spacing_is_that_of_the_group_commit(self) -> None:
        assert spacing_s(400) == 0
        assert spacing_s(1500) == pytest.approx(0.004)
        assert spacing_s(1e9) == MAX_SPACING_S


class TestHints:
    def test_nobody_else_is_told_of_nothing(self) -> None:
        assert watching_nodes(1, 5) == 0
        assert watching_nodes(3, 0) == 0

    def test_one_other_node_is_told_once(self) -> None:
        assert watching_nodes(2, 1) == 1
        assert watching_nodes(2, 50) == 1

    def test_two_rows_for_two_nodes(self) -> None:
        assert watching_nodes(3, 2) == pytest.approx(1.5)  # in half of the cases the same one


class TestSimulation:
    def test_a_case_done_by_hand(self) -> None:
        # 2 nodes with 1 run of 10 chunks/s each; a commit takes no time, so each chunk is one.
        costs = Costs(
            node_chunk=50, node_follow=30, commit=100, row=10, run=1000, hint=200, read_row=5,
            idle_node=1000, idle_run=1, commit_s=0, row_wal=300, run_wal=6000, connections=10,
        )  # fmt: skip
        use = simulate(2, Load(streams=1, chunks_per_s=10, chunks=100, elsewhere=1), costs)
        assert (use.streams, use.chunks, use.connections) == (2, 20, 20)
        assert (use.commits, use.rows, use.hints) == pytest.approx((20, 20, 20))
        # 20 commits, rows, hints, reads; 0.2 runs; 2 nodes that each look at 2 runs.
        by_hand = 20 * 100 + 20 * 10 + 20 * 200 + 20 * 5 + 0.2 * 1000 + 2 * (1000 + 2 * 1)
        assert use.database_cores == pytest.approx(by_hand / 1e6)
        assert use.wal_bytes == pytest.approx(20 * 300 + 0.2 * 6000)
        assert use.node_cores == pytest.approx(10 * (50 + 30) / 1e6)

    def test_one_node_has_nobody_elsewhere(self) -> None:
        use = simulate(1, Load(elsewhere=1.0), Costs())
        assert use.hints == 0
        assert use == simulate(1, Load(elsewhere=0.0), Costs())

    def test_everything_grows_with_the_nodes_and_the_share_elsewhere(self) -> None:
        uses = [simulate(nodes, Load(), Costs()) for nodes in NODES]
        for name in ("commits", "rows", "hints", "wal_bytes", "connections", "database_cores"):
            values = [getattr(use, name) for use in uses]
            assert values == sorted(values), name
            assert len(set(values)) == len(values), name
        shares = [simulate(10, Load(elsewhere=n / 10), Costs()).database_cores for n in range(11)]
        assert shares == sorted(shares)

    def test_what_nodes_do_alone_costs_each_the_same(self) -> None:
        one, ten = (simulate(nodes, Load(elsewhere=0), Costs()) for nodes in (1, 10))
        assert ten.commits == pytest.approx(10 * one.commits)
        assert ten.node_cores == pytest.approx(one.node_cores)
        # Looking at each other's runs is what does not: it grows with the square.
        alone, together = (
            simulate(nodes, Load(elsewhere=0), replace(FREE, idle_run=1)) for nodes in (1, 10)
        )
        assert together.database_cores == pytest.approx(100 * alone.database_cores)


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "name"),
        [
            (replace(ROOMY, node_cores=0.01), "node CPU"),
            (replace(ROOMY, database_cores=0.1), "database CPU"),
            (replace(ROOMY, wal_bytes_per_s=1e4), "log"),
            (replace(ROOMY, connections=15), "connections"),
        ],
    )
    def test_the_scarce_resource_ends_first(self, limits: Limits, name: str) -> None:
        use = simulate(2, Load(), Costs())
        assert use.first_to_end(limits)[0] == name
        assert not use.fits(limits)
        assert use.fits(ROOMY)

    def test_the_largest_cluster_fits_and_the_next_one_does_not(self) -> None:
        load, costs, limits = Load(), Costs(), Limits()
        largest = largest_cluster(load, costs, limits)
        assert simulate(largest, load, costs).fits(limits)
        assert not simulate(largest + 1, load, costs).fits(limits)

    def test_connections_alone_are_a_division(self) -> None:
        assert largest_cluster(Load(), Costs(), replace(ROOMY, connections=97)) == 9

    def test_a_node_that_cannot_carry_its_streams_makes_no_cluster(self) -> None:
        assert largest_cluster(Load(streams=100_000), Costs(), Limits()) == 0
        assert clusters(10, 0) is None

    def test_clusters_are_rounded_up(self) -> None:
        assert [clusters(nodes, 40) for nodes in (1, 40, 41, 1000)] == [1, 1, 2, 25]


def test_the_document_has_the_tables_of_the_costs() -> None:
    document = DOCUMENT.read_text()
    assert with_tables(document, tables(Costs(), Limits())) == document
