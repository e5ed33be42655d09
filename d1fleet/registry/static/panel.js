// What the panel does beyond plain pages. Without it all of it works, with a reload.
'use strict';

import { startForms } from './forms.js';
import { startLive } from './live.js';
import { startMenus } from './menus.js';
import { startTicking } from './ticking.js';

document.documentElement.classList.add('scripted');
startTicking();
startForms();
startMenus();
startLive();
