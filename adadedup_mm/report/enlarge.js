const viewer = document.getElementById('viewer');
const [stage, caption] = viewer.querySelectorAll('.stage, .caption');
const [back, on] = viewer.querySelectorAll('.turn');
let row = [], place = 0;

const show = number => {
  place = (number + row.length) % row.length;
  const frame = row[place];
  const figure = frame.closest('figure');
  const image = frame.querySelector('img');
  const texts = figure.querySelectorAll('.state, .badge, .labelled');
  stage.style.setProperty('--ratio', image.naturalWidth / image.naturalHeight || 1);
  stage.replaceChildren(...[...frame.querySelectorAll('img, svg')].map(part => part.cloneNode(true)));
  caption.textContent = [...texts].map(text => text.textContent).join(' \u00b7 ') + '\n' + figure.title;
};

for (const frame of document.querySelectorAll('button.frame')) {
  frame.addEventListener('click', () => {
    row = [...frame.closest('.group, .pictures').querySelectorAll('button.frame')];
    back.hidden = on.hidden = row.length < 2;
    show(row.indexOf(frame));
    viewer.showModal();
  });
}
back.addEventListener('click', () => show(place - 1));
on.addEventListener('click', () => show(place + 1));
viewer.addEventListener('click', event => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener('keydown', event => {
  if (event.key === 'ArrowLeft') show(place - 1);
  if (event.key === 'ArrowRight') show(place + 1);
});
