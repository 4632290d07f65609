"""The pages: links lead somewhere, the Chinese pages say what the English say, and the
flags are those of the script."""
import argparse
import glob
import os
import re

import pytest
from conftest import ROOT

import train_lstm_mnist
from training import flags

PAGES = sorted(os.path.relpath(path, ROOT)
               for pattern in ('*.md', 'docs/*.md', 'tests/*/*.md')
               for path in glob.glob(os.path.join(ROOT, pattern)))
BLOCK = r'^```[\s\S]*?^```$|^(?: {4}.*\n)+'  # fenced, or indented


# The only section that the Chinese README has and the English has not.
IN_CHINA = r'^## 在国内安装\n[\s\S]*?(?=^## )'


def read(page):
    with open(os.path.join(ROOT, page), encoding='utf-8') as f:
        return re.sub(IN_CHINA, '', f.read(), flags=re.M)


def blocks(page):
    return re.findall(BLOCK, read(page), re.M)


def prose(page):
    return re.sub(r'\s+', ' ', re.sub(BLOCK, '', read(page), flags=re.M))


def links(page):
    return [target.replace('.zh-CN', '') for target in
            re.findall(r'\]\(([^)]*)\)', read(page))]


@pytest.mark.parametrize('page', [
    'README.md', 'docs/how-it-works.md', 'docs/gpu.md', 'docs/your-own-data.md'])
def test_both_languages_show_the_same(page):
    chinese = page.replace('.md', '.zh-CN.md')
    assert blocks(page) == blocks(chinese)
    # The first link of each page is to the other language.
    assert links(page) == links(chinese)
    assert [links(name)[0] for name in (page, chinese)] == [os.path.basename(page)] * 2
    for shown in (
            lambda name: set(re.findall(r'`[^`]+`', prose(name))),
            lambda name: set(re.findall(r'\d[\d,.]*\d', prose(name))),
            lambda name: re.findall(r'^(?:#+|-|\d\.) |^(?=\|)', read(name), re.M)):
        assert shown(page) == shown(chinese)


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    folder = os.path.join(ROOT, os.path.dirname(page))
    for target in re.findall(r'\]\(([^)]*)\)', read(page)):
        path, _, heading = target.partition('#')
        if ':' in path:
            continue
        path = os.path.join(folder, path) if path else os.path.join(ROOT, page)
        assert os.path.exists(path), target
        if heading:
            # As GitHub makes anchors.
            anchors = [re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-')
                       for title in re.findall(r'^#+ (.*)', read(path), re.M)]
            assert heading in anchors


def actions(monkeypatch):
    """Return {flag: its `argparse.Action`} of train_lstm_mnist.py."""
    class Built(Exception):
        pass

    def parse_args(parser, argv):
        raise Built(parser)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    with pytest.raises(Built) as built:
        train_lstm_mnist.parse_flags([])
    parser, = built.value.args
    return {action.option_strings[-1]: action for action in parser._actions
            if action.dest != 'help'}


def test_the_page_has_the_flags_and_their_defaults(monkeypatch):
    rows = re.findall(r'^\| `(--\w+)` \| (.*?) ?\|', read('docs/running.md'), re.M)
    expected = actions(monkeypatch)
    assert sorted(flag for flag, _ in rows) == sorted(expected)
    for flag, cell in rows:
        default = expected[flag].default
        # A flag whose default is None has words in the cell, or nothing.
        if default is not None:
            assert cell == ('' if default is False else str(default)), flag


def test_the_page_has_the_flags_that_resume_may_change():
    sentence, = re.findall(r'You can change (.*?)\. ', prose('docs/running.md'))
    assert re.findall(r'`--(\w+)`', sentence) == [*flags.RESUME_FLAGS]


def test_the_page_has_the_defaults_of_quick():
    row, = re.findall(r'^\| `--quick` .*`(.*)` \|$', read('docs/running.md'), re.M)
    assert row == ' '.join('--%s %s' % flag for flag in train_lstm_mnist.QUICK.items())
