"""Drive a headless Chromium by its DevTools protocol, over a pipe."""
import base64
import json
import os
import shutil
import subprocess

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find():
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser(object):
    """A Chromium with one page. Use it in a with statement.

    Attributes:
        requests: list of str, the addresses that the page asked for.
        errors: list of str, what went wrong in its JavaScript.
    """

    def __init__(self, profile, language='en-US'):
        """profile is the path of a new folder."""
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        self._process = subprocess.Popen(
            ['bash', '-c', 'exec "$@" 3<&%d 4>&%d' % (reads, writes), '', find(),
             '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--remote-debugging-pipe', '--no-first-run', '--hide-scrollbars',
             '--user-data-dir=%s' % profile, '--lang=' + language,
             '--accept-lang=' + language, 'about:blank'],
            pass_fds=(reads, writes), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(reads)
        os.close(writes)
        self._rest, self._number, self._session = b'', 0, {}
        self.requests, self.errors = [], []

    def __enter__(self):
        target = self.do('Target.createTarget', url='about:blank')['targetId']
        self._session = {'sessionId': self.do('Target.attachToTarget', targetId=target,
                                              flatten=True)['sessionId']}
        for domain in ('Page', 'Network', 'Runtime', 'Log'):
            self.do(domain + '.enable')
        return self

    def __exit__(self, *error):
        self._session = {}
        self.do('Browser.close')  # then it removes its temporary files
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def do(self, method, **params):
        """Call a method of the protocol; return its result, a dict."""
        self._number += 1
        os.write(self._out, json.dumps(dict(
            self._session, id=self._number, method=method, params=params)
        ).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, (method, answer)
                return answer['result']

    def _read(self):
        """Return the next message, after noting what it says."""
        while b'\0' not in self._rest:
            received = os.read(self._in, 1 << 20)
            assert received, 'Chromium has ended'
            self._rest += received
        message, self._rest = self._rest.split(b'\0', 1)
        message = json.loads(message.decode())
        params = message.get('params', {})
        if message.get('method') == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif message.get('method') == 'Runtime.exceptionThrown':
            self.errors.append(params['exceptionDetails']['exception']['description'])
        elif (message.get('method') == 'Log.entryAdded'
              and params['entry']['level'] == 'error'):
            self.errors.append(params['entry']['text'])
        return message

    def open(self, path, width=1100, height=900, touch=False):
        """Open a file in a window of this size, with a finger instead of a mouse."""
        self.do('Emulation.setDeviceMetricsOverride', width=width, height=height,
                deviceScaleFactor=1, mobile=touch)
        self.do('Emulation.setTouchEmulationEnabled', enabled=touch)
        self.do('Page.navigate', url='file://' + os.path.abspath(str(path)))
        while self._read().get('method') != 'Page.loadEventFired':
            pass

    def value(self, expression):
        """Return the value of a JavaScript expression, after its promise is kept."""
        answer = self.do('Runtime.evaluate', expression=expression, awaitPromise=True,
                         returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def text(self, name):
        """Return the text of the element with an id."""
        return self.value('document.getElementById("%s").textContent' % name)

    def drag(self, points, touch=False):
        """Press the mouse at the first point (x, y), and drag it to the others."""
        (x, y), *others = points
        for kind, places in (('Pressed', [(x, y)]), ('Moved', others),
                             ('Released', points[-1:])):
            for x, y in places:
                if touch:
                    self.do('Input.dispatchTouchEvent', type={
                        'Pressed': 'touchStart', 'Moved': 'touchMove',
                        'Released': 'touchEnd'}[kind],
                        touchPoints=[] if kind == 'Released' else [{'x': x, 'y': y}])
                else:
                    self.do('Input.dispatchMouseEvent', type='mouse' + kind, x=x, y=y,
                            button='left', buttons=int(kind != 'Released'),
                            clickCount=1)

    def screenshot(self):
        """Return a PNG file of the whole page."""
        return base64.b64decode(self.do('Page.captureScreenshot',
                                        captureBeyondViewport=True)['data'])
