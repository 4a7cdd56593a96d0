// SPDX-License-Identifier: MIT
// Everything.
#pragma once

#include <retain/behavioral_cloning.hpp>
#include <retain/categorical.hpp>
#include <retain/compose.hpp>
#include <retain/concepts.hpp>
#include <retain/error.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/loss/gae.hpp>
#include <retain/loss/ppo.hpp>
#include <retain/parameters.hpp>
#include <retain/schedule.hpp>
#include <retain/state.hpp>
#include <retain/teacher.hpp>
