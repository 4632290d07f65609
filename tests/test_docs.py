"""The pages: links lead somewhere, and the Chinese pages say what the English say."""
import glob
import os
import re

import pytest
from conftest import ROOT

PAGES = sorted(os.path.relpath(path, ROOT)
               for pattern in ('*.md', 'docs/*.md', 'tests/*/*.md')
               for path in glob.glob(os.path.join(ROOT, pattern)))
BLOCK = r'^```[\s\S]*?^```$|^(?: {4}.*\n)+'  # fenced, or indented


def read(page):
    with open(os.path.join(ROOT, page), encoding='utf-8') as f:
        return f.read()


def blocks(page):
    return re.findall(BLOCK, read(page), re.M)


def prose(page):
    return re.sub(r'\s+', ' ', re.sub(BLOCK, '', read(page), flags=re.M))


def links(page):
    return [target.replace('.zh-CN', '') for target in
            re.findall(r'\]\(([^)]*)\)', read(page))]


@pytest.mark.parametrize('page', ['README.md', 'docs/how-it-works.md'])
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
