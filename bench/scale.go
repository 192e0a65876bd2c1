//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	machines = 1000
	atATime  = 8 // starts and destroys under way
)

// stations are the numbers of running machines at which the curves have points.
var stations = []int{1, 10, 100, 300, 1000}

// scale starts a thousand machines, jailed, on the way up times what a caller waits for beside them: one more life, Info and List.
func scale(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	r, err := newRig(ctx, parts, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	curves := map[string]*curve{"jailed_life_at": {}, "info_at": {}, "list_at": {}}
	var last, first map[string][]time.Duration
	for i, station := range stations {
		begin := 0
		if i > 0 {
			begin = stations[i-1]
		}
		if err := fill(ctx, r.Runtime, begin, station); err != nil {
			return nil, err
		}
		last = map[string][]time.Duration{}
		for range 10 {
			if err := probe(ctx, r.Runtime, last); err != nil {
				return nil, err
			}
		}
		if first == nil {
			first = last
		}
		for name, c := range curves {
			c.add(station, last[name])
		}
	}
	figures := []figure{
		newFigure("jailed_life_1000", last["jailed_life_at"], "the same beside one machine", first["jailed_life_at"]),
		newFigure("info_1000", last["info_at"], "the same beside one machine", first["info_at"]),
		newFigure("list_1000", last["list_at"], "", nil),
	}
	for i, name := range []string{"jailed_life_at", "info_at", "list_at"} {
		figures[i].curve = curves[name]
	}
	return figures, nil
}

// fill starts the machines from begin to end.
func fill(ctx context.Context, rt *microvm.Runtime, begin, end int) error {
	var group sync.WaitGroup
	numbers := make(chan int)
	failed := make(chan error, atATime)
	for range atATime {
		group.Go(func() {
			for n := range numbers {
				if err := start(ctx, rt, fmt.Sprint("scale-", n)); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for n := begin; n < end; n++ {
		select {
		case numbers <- n:
		case err := <-failed:
			close(numbers)
			group.Wait()
			return err
		}
	}
	close(numbers)
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func start(ctx context.Context, rt *microvm.Runtime, name string) error {
	vm, err := rt.Create(ctx, name, microvm.Spec{Diskless: true})
	if err != nil {
		return err
	}
	return vm.Start(ctx, nil)
}

// probe times one more life, a look at it, and a look at all.
func probe(ctx context.Context, rt *microvm.Runtime, samples map[string][]time.Duration) error {
	var vm *microvm.VM
	life := func() (err error) {
		if vm, err = rt.Create(ctx, "probe", microvm.Spec{Diskless: true}); err != nil {
			return err
		}
		return vm.Start(ctx, nil)
	}
	for _, what := range []struct {
		name string
		do   func() error
	}{
		{"jailed_life_at", life},
		{"info_at", func() error { _, err := vm.Info(ctx); return err }},
		{"list_at", func() error { _, err := rt.List(ctx, nil); return err }},
	} {
		took, err := timed(what.do)
		if err != nil {
			return fmt.Errorf("%s: %w", what.name, err)
		}
		samples[what.name] = append(samples[what.name], took)
	}
	return vm.Destroy(ctx)
}
