# SPDX-License-Identifier: MIT
# Draws seeds.svg, the picture of README, from sweep.csv: gnuplot docs/nethack/seeds.gp
set encoding utf8
set datafile separator comma
set terminal svg size 860,330 font 'DejaVu Sans,13' background '#ffffff'
set output 'docs/nethack/seeds.svg'
data = 'docs/nethack/sweep.csv'
methods = 'none ewc bc ks'
score(i, recipe) = strcol(2) eq word(methods, i) && strcol(3) eq recipe ? column(9) : NaN
do for [i = 1:4] {
  stats data using (score(i, 'careful')) name sprintf('m%d', i) nooutput
}
stats data using (strcol(1) eq 'clone' ? column(9) : NaN) name 'clone' nooutput

unset key
set border 1
set tics nomirror out
set xlabel 'mean score of 100 new games after 400 000 steps, one point a run'
set xrange [400:1250]
set yrange [4.6:0.4]
set ytics scale 0 ('plain fine-tuning' 1, '+ elastic weight consolidation' 2, '+ behavioral cloning' 3, '+ kickstarting' 4)
set arrow from clone_mean, 0.4 to clone_mean, 4.6 nohead lc '#999999' dt 2 lw 1.5
set label 'the pre-trained policy' at clone_mean, 0.62 offset 0.7, 0 tc '#666666'
array mean[4] = [m1_mean, m2_mean, m3_mean, m4_mean]
colors = '#D55E00 #0072B2 #009E73 #CC79A7'
plot for [i = 1:4] data using (score(i, 'careful')):(i) with points pt 7 ps 0.8 lc rgb word(colors, i), \
     for [i = 1:4] data using (mean[i]):(i - 0.3):(0):(0.6) every ::0::0 with vectors nohead lw 3 lc rgb word(colors, i)
