"""What an answer states is read from English word order; what cannot be read is listed."""

from blip2_lab.evaluation.natural.reading import read


def test_the_reader_says_what_it_could_not_read():
    said = read("a red zebra near the boat")
    assert said.unknown == ["zebra"] and read("it is a small, red boat").mentions[0].sizes == {"small"}
