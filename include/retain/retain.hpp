// SPDX-License-Identifier: MIT
// Includes all headers for retention, losses and replay. Networks (retain/policy/...) and headers
// that use Eigen (retain/eigen.hpp, kfac.hpp, kfac_ewc.hpp, mahalanobis_gate.hpp) are not included,
// because they increase the compile time.
#pragma once

#include <retain/anchored_critic.hpp>
#include <retain/attach.hpp>
#include <retain/behavioral_cloning.hpp>
#include <retain/categorical.hpp>
#include <retain/compose.hpp>
#include <retain/concepts.hpp>
#include <retain/dark_experience_replay.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/entropy_gate.hpp>
#include <retain/episodic_memory.hpp>
#include <retain/error.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/freeze.hpp>
#include <retain/gradient_projection.hpp>
#include <retain/interpolation.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/loss/gae.hpp>
#include <retain/loss/negative_log_likelihood.hpp>
#include <retain/loss/ppo.hpp>
#include <retain/loss/rnd.hpp>
#include <retain/loss/sac.hpp>
#include <retain/loss/sac_temperature.hpp>
#include <retain/loss/two_stream_gae.hpp>
#include <retain/loss/value_steps.hpp>
#include <retain/loss/vtrace.hpp>
#include <retain/masked_categorical.hpp>
#include <retain/memory_aware_synapses.hpp>
#include <retain/metrics.hpp>
#include <retain/monitor.hpp>
#include <retain/multi_discrete.hpp>
#include <retain/packnet.hpp>
#include <retain/parameters.hpp>
#include <retain/polyak.hpp>
#include <retain/reference_kl.hpp>
#include <retain/replay/file_memory.hpp>
#include <retain/replay/file_writer.hpp>
#include <retain/replay/prioritised.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/transitions.hpp>
#include <retain/replay/uniform.hpp>
#include <retain/running_statistics.hpp>
#include <retain/schedule.hpp>
#include <retain/state.hpp>
#include <retain/synaptic_intelligence.hpp>
#include <retain/tanh_gaussian.hpp>
#include <retain/teacher.hpp>
#include <retain/warm_start.hpp>
