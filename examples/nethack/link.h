// SPDX-License-Identifier: MIT
// The memory a game and its player share; both the transport (C) and game.hpp (C++) include this.
//
// Strict turns: the game fills `frame`, raises `frames` and sleeps until `keys` rises; the player
// writes `key`, raises `keys` and sleeps until `frames` rises. Each counter is a futex. Against a
// pair of sockets this spares both the copies and, where the player comes late enough, its system
// call.
#ifndef RETAIN_NETHACK_LINK_H
#define RETAIN_NETHACK_LINK_H

#include <stdint.h>

enum { nethack_frame_capacity = 1 << 16 };

struct nethack_link {
  uint32_t keys;           // keys sent so far
  uint32_t key;            // the last of them
  uint32_t frames;         // frames shown so far
  uint32_t frame_size;     // bytes in the last of them
  uint32_t frame_partial;  // 1: the frame did not fit; the next key is only a request for the rest
  uint32_t ended;          // 1: the game has left by itself, this was its last frame
  uint32_t player_asleep;  // 1: the player has to be woken when a frame is there
  unsigned char frame[nethack_frame_capacity];
};

#endif
