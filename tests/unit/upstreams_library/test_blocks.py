from holdfast.upstreams.library.blocks import Block, Heading, read_blocks


def shapes(text: str, suffix: str = ".md") -> list[str]:
    return [
        f"{item.level} {item.text}" if isinstance(item, Heading) else item.text
        for item in read_blocks(text, suffix)
    ]


def test_blank_lines_separate_paragraphs_and_wrapped_lines_are_joined() -> None:
    text = "A paragraph that was wrapped at some width by\nits author.\n\nAnother one.\n"
    assert shapes(text) == [
        "A paragraph that was wrapped at some width by its author.",
        "Another one.",
    ]


def test_wrapped_chinese_is_joined_without_a_space() -> None:
    assert shapes("潮汐的根源是月球和太阳对地球各处海水的引力\n并不一样大。") == [
        "潮汐的根源是月球和太阳对地球各处海水的引力并不一样大。"
    ]


def test_short_lines_lists_and_tables_keep_their_lines() -> None:
    text = "Roses are red,\nviolets are blue.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    assert shapes(text) == [
        "Roses are red,\nviolets are blue.",
        "- one\n- two",
        "| a | b |\n|---|---|\n| 1 | 2 |",
    ]


def test_both_kinds_of_markdown_headings_are_read() -> None:
    text = "# One #\n\nTwo\n---\n\n### C#\n#hashtag\n"
    assert shapes(text) == ["1 One", "2 Two", "3 C#", "#hashtag"]


def test_a_rule_is_neither_heading_nor_text() -> None:
    assert shapes("Above.\n\n---\n\nBelow.") == ["Above.", "Below."]


def test_code_is_kept_as_it_is_and_its_hashes_are_no_headings() -> None:
    blocks = list(read_blocks("```sh\n# comment\n\n  indented\n```\nAfter.", ".md"))
    assert blocks == [
        Block("# comment\n\n  indented", ((0, 2), (10, 3), (11, 4)), fence="```sh"),
        Block("After.", ((0, 6),)),
    ]


def test_code_without_an_end_goes_to_the_end() -> None:
    assert shapes("~~~\ncode\n# code") == ["code\n# code"]


def test_links_and_pictures_become_their_words() -> None:
    text = '# The [log](log.md)\n\nSee [the log](log.md "title") and [![badge](b.svg)](ci).'
    assert shapes(text) == ["1 The log", "See the log and badge."]


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    assert shapes("---\ntitle: 'Tides'\ntags: [sea]\n---\nText.") == ["1 Tides", "Text."]


def test_headings_of_restructured_text_are_ranked_by_first_use() -> None:
    text = "=====\nTitle\n=====\n\nPart\n----\n\nText.\n\nSub\n~~~\n\nOther\n-----\nEnd."
    assert shapes(text, ".rst") == ["1 Title", "2 Part", "Text.", "3 Sub", "2 Other", "End."]


def test_plain_text_has_no_headings() -> None:
    assert shapes("# not a heading\n\nPart\n----", ".txt") == ["# not a heading", "Part\n----"]


def test_line_numbers_follow_every_kind_of_line_end() -> None:
    for end in ("\n", "\r\n", "\r"):
        (block,) = read_blocks(end.join(["", "", "one", "two"]), ".txt")
        assert isinstance(block, Block)
        assert block.starts == ((0, 3), (4, 4))
