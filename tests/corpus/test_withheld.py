"""The table of withheld styles: which files of OpenScore's folder are mélodies or songs."""

import json

from partbook.corpus.withheld import MELODIES, SONGS, STYLES, TABLE, collection_of, taken_out_of


def test_no_file_is_of_two_styles() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert list(table) == ["openscore-lieder"]
    numbers = table["openscore-lieder"]
    assert {style: len(of_style) for style, of_style in numbers.items()} == {MELODIES: 305, SONGS: 294}
    assert len({*numbers[MELODIES], *numbers[SONGS]}) == 305 + 294
    assert set(numbers) < set(STYLES)


def test_a_file_is_known_by_its_number_and_by_nothing_else() -> None:
    folder = "openscore-lieder"
    assert collection_of(folder, "scores__Satie,_Erik__Ludions__4_Air_du_pote__lc6994174") == MELODIES
    assert collection_of(folder, "another name lc6994174") == MELODIES
    assert collection_of(folder, "scores__Barnby,_Joseph_____The_Beggar_Maid__lc6478624") == SONGS
    assert collection_of(folder, "s__Schubert,_Franz__Op.59__1_Du_liebst_mich_nicht__lc5103323") == folder
    assert collection_of(folder, "scores__Satie,_Erik__Ludions") == folder
    assert collection_of("my songs", "scores__Satie,_Erik__Ludions__4_Air_du_pote__lc6994174") == "my songs"


def test_only_that_folder_has_styles_taken_out_of_it() -> None:
    assert taken_out_of("openscore-lieder") == (MELODIES, SONGS)
    assert taken_out_of("pop909") == ()
