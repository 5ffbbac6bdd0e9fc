import pytest

from holdfast.upstreams.library.words import MAX_TERM, Token, fold_word, index_terms, tokens


def test_spaced_and_unspaced_scripts_are_told_apart() -> None:
    assert list(tokens("用WAL写日志 twice")) == [
        Token("用", True),
        Token("WAL", False),
        Token("写日志", True),
        Token("twice", False),
    ]


def test_a_run_of_chinese_gives_its_characters_and_its_pairs() -> None:
    assert index_terms("预写日志") == ["预", "写", "日", "志", "预写", "写日", "日志"]


def test_japanese_and_korean_are_read_by_pairs_too() -> None:
    assert "ータ" in index_terms("データ")
    assert "조수" in index_terms("조수의 높이")


def test_half_width_letters_are_read_as_usual_ones() -> None:
    assert index_terms("ﾃﾞｰﾀ") == index_terms("データ")


def test_punctuation_separates_runs() -> None:
    assert "水潮" not in index_terms("海水，潮汐")


@pytest.mark.parametrize("text", ["TIDES", "ｔｉｄｅｓ", "Tide's", "tide’s", "tide"])
def test_case_width_and_possessives_do_not_matter(text: str) -> None:
    assert index_terms(text) == ["tide"]


@pytest.mark.parametrize(
    ("word", "folded"), [("Café", "cafe"), ("Straße", "strasse"), ("don't", "dont"), ("Ａ１", "a1")]
)
def test_words_are_folded(word: str, folded: str) -> None:
    assert fold_word(word) == folded


def test_hyphens_and_underscores_separate_words() -> None:
    assert index_terms("write-ahead_log") == ["write", "ahead", "log"]


def test_no_term_is_longer_than_the_limit() -> None:
    assert [len(term) for term in index_terms("x" * 5_000)] == [MAX_TERM]


def test_emoji_and_signs_are_no_terms() -> None:
    assert index_terms("🙂 -- \" ' * ( ) \0 \ud800") == []
