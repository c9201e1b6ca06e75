// What needles are hidden in where nothing else is given: running text without numbers, and names
// of cities. Data alone.

export const CITIES: readonly string[] = [
  ...["Lisbon", "Oslo", "Nairobi", "Lima", "Kyoto", "Tunis", "Havana", "Riga", "Hanoi", "Bergen"],
  ...["Quito", "Dakar", "Porto", "Perth", "Turin", "Seville", "Accra", "Dublin", "Geneva", "Delhi"],
  ...["Kraków", "Boston", "Izmir", "Montreal", "Naples", "Odense", "Prague", "Rabat", "Salzburg", "Toledo"],
  ...["Utrecht", "Vienna", "Windhoek", "Zagreb", "Manila", "Lagos", "Denver", "Cairo", "Athens", "Amman"],
];

export const PROSE = `The path along the river begins behind the old mill and follows the water for most of the morning. In spring the meadows \
on both sides are wet, and whoever walks there wears good boots. Herons stand in the shallows and wait without moving. A wooden bridge \
crosses the first bend, and from its middle the roofs of the village can still be seen. Beyond it the trees come closer, and the air grows cool.

A baker starts work long before the street is awake. The dough has rested through the night, and it is divided, shaped and left to rise once \
more. While the oven warms up, the tables are swept and the baskets are lined with linen. The first loaves go to the back, where the heat \
is strongest. When the door opens, the smell of bread reaches the corner of the square.

Sailing ships once carried wool, timber and salt along this coast. Their captains knew every rock by the name that fishermen had given it. \
Charts were drawn by hand, copied often and corrected seldom. A lamp on the hill told those who came home late where the harbour lay. Today \
the lamp is electric, and the house of its keeper has become a small museum.

The library was built of pale stone and has tall windows to the north. Readers prefer the seats near the stairs, because the light is even \
there all day. Books that are asked for arrive from the cellar on a narrow lift. Nobody remembers who planted the walnut tree in the yard. \
In autumn its leaves are raked into heaps, and children jump into them on their way from school.

A clock maker explained that most of his work is cleaning. Oil thickens with the years, dust settles on the wheels, and the movement slows \
down until it stops. He takes every part out, washes it, looks at it under a lens and puts it back. Rarely does he have to replace a spring. \
People are surprised when he gives them back a clock that has not run since they were young.

Rain had fallen on the hills for days, and the streams were loud. The shepherds brought their animals down to the lower pastures and \
mended the fences while they waited. In the evening they sat by the stove and talked about the price of hay. One of them carved spoons from \
the wood of a plum tree. The dogs slept beside the door and lifted their heads at every gust of wind.

Gardeners say that patience is the better half of their trade. A hedge takes years to close, and a pear tree trained against a wall takes \
longer still. They sow more than they need and thin out what comes up. Tools are oiled before winter and hung in the shed in the order \
in which they will be wanted. What fails in one bed is tried again in another, with more shade or less water.

The train to the mountains leaves from the last platform. It climbs slowly, turns through tunnels and comes out above the clouds. \
Passengers put their newspapers away and look out of the windows. At the summit station a man sells tea from a kettle. Some stay for the \
view, others walk down through the forest to the lake, where a boat takes them across.

Music was practised in the hall whenever it was free. The cellos sat to the right, close to the curtain, and complained about the draught. \
A conductor who was patient with singers was not always patient with trumpets. They played the slow movement again and again until it \
breathed by itself. Outside, somebody who had listened for a while walked on and hummed the tune.

Letters from that time are full of weather, visits and recipes. The writers knew that a letter would travel for weeks, so they chose \
what would still be true when it arrived. Paper was dear, and some of them turned the sheet and wrote across their own lines. A few pressed \
flowers between the pages. What they left out can often be guessed from the answers.`;
