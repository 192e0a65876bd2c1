//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/network"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	firstUser = 1 << 20 // of slot 0; nobody's
	takeLimit = 1.3
	probes    = 100 // at each station
	takes     = 4   // of one ready slot, for one return
)

// slotStations are the numbers of slots at which the curves have points.
var slotStations = []int{10, 100, 1000}

// networkSlots makes a thousand slots on a stand-in for the host, and times on the way up what a machine's start and end do with one: alternately with the same in a network that has few.
func networkSlots(ctx context.Context, _ setup.Parts) (_ []figure, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	host, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	var networks [2]*network.Network // many, few
	for i := range networks {
		options := network.Options{Dir: filepath.Join(dir, strconv.Itoa(i)), ID: fmt.Sprintf("be4c000%d", i), Host: host}
		if networks[i], err = network.Open(ctx, options); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, network.Remove(context.WithoutCancel(ctx), options)) }()
	}
	ours, theirs, curves := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string]*curve{}
	if err := grow(ctx, networks[0], networks[1], ours, theirs, curves); err != nil {
		return nil, err
	}
	var figures []figure
	for _, name := range []string{"slot_make", "slot_take", "slot_return"} {
		f := newFigure(name, ours[name], fmt.Sprintf("the same among %d", slotStations[0]), theirs[name])
		f.curve = curves[name]
		if name == "slot_take" {
			f.Limit = takeLimit
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// grow makes the slots of both networks. Of ours those samples stay that were taken since the last station but one, of theirs all.
func grow(ctx context.Context, many, few *network.Network, ours, theirs map[string][]time.Duration, curves map[string]*curve) error {
	for number := range slotStations[0] {
		if err := sample(theirs, "slot_make", func() error { return makeOrTake(ctx, few, number) }); err != nil {
			return err
		}
	}
	made := 0
	for _, station := range slotStations {
		clear(ours)
		for ; made < station; made++ {
			if err := sample(ours, "slot_make", func() error { return makeOrTake(ctx, many, made) }); err != nil {
				return err
			}
		}
		for i := range probes {
			if err := errors.Join(takeAndReturn(ctx, many, i*station/probes, ours), takeAndReturn(ctx, few, i%slotStations[0], theirs)); err != nil {
				return err
			}
		}
		for name, samples := range ours {
			if curves[name] == nil {
				curves[name] = &curve{}
			}
			curves[name].add(station, samples)
		}
	}
	return nil
}

// makeOrTake makes a slot, or takes it when it is ready.
func makeOrTake(ctx context.Context, n *network.Network, number int) error {
	_, err := n.Make(ctx, number, firstUser+number, firstUser+number)
	return err
}

func takeAndReturn(ctx context.Context, n *network.Network, number int, samples map[string][]time.Duration) error {
	for range takes {
		if err := sample(samples, "slot_take", func() error { return makeOrTake(ctx, n, number) }); err != nil {
			return err
		}
	}
	return sample(samples, "slot_return", func() error { return n.Recycle(ctx, number) })
}

func sample(samples map[string][]time.Duration, name string, do func() error) error {
	took, err := timed(do)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	samples[name] = append(samples[name], took)
	return nil
}
