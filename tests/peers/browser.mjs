// Chromium without a window, which asks nobody else for anything.

import { chromium } from 'playwright-core';

const options = {
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox', // the tests may run as root
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
};

// Again where it fails: it crashes at its own start now and then on a machine with much to do.
const again = (tries) => (error) => {
  if (tries === 0) throw error;
  return chromium.launch(options).catch(again(tries - 1));
};

export const launch = () => chromium.launch(options).catch(again(2));
