// Chromium without a window, which asks nobody else for anything.

import { chromium } from 'playwright-core';

const launchOnce = () => chromium.launch({
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
});

// It crashes at its own start now and then, where the machine has much else to do.
export const launch = async () => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await launchOnce();
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
};
