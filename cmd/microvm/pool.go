//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/warmpool"
)

func poolCommand() *cobra.Command {
	return group("pool", "Keep restored machines ready, and hand each out once", poolFillCommand(), poolServeCommand(), poolTakeCommand(), poolListCommand(), poolDrainCommand())
}

// poolFlags are the flags of who keeps a pool.
type poolFlags struct {
	size, parallel int
	labels         []string
	backend        string
}

func (f *poolFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.size, "size", 4, "how many machines wait")
	cmd.Flags().IntVar(&f.parallel, "parallel", 0, "how many are made at a time; otherwise 2")
	cmd.Flags().StringVar(&f.backend, "backend", "", "where their memory comes from: file, or uffd, page by page by a helper")
	cmd.Flags().StringArrayVarP(&f.labels, "label", "l", nil, "KEY=VALUE of the machines, repeatable")
}

// open opens a pool that keeps itself full, and waits until it is.
func (f *poolFlags) open(ctx context.Context, rt *microvm.Runtime, name, snapshot string) (*warmpool.Pool, error) {
	labels, err := pairs(f.labels)
	if err != nil {
		return nil, err
	}
	if f.size < 1 {
		return nil, usageError{errors.New("--size must be more than 0 (microvm pool drain takes all away)")}
	}
	pool, err := warmpool.Open(ctx, rt, name, snapshot, &warmpool.Options{
		Size: f.size, Parallel: f.parallel, Restore: microvm.RestoreOptions{Labels: labels, Backend: microvm.MemoryBackend(f.backend)},
	})
	if err != nil {
		return nil, err
	}
	if err := pool.Fill(ctx); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return pool, nil
}

func poolFillCommand() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "fill POOL SNAPSHOT [flags]",
		Short: "Restore machines until as many wait as are to",
		Args:  count(2, 2),
	}
	cmd.RunE = runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
		pool, err := f.open(ctx, rt, args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Println(pool.Status().Ready)
		return pool.Close()
	})
	f.add(cmd)
	return cmd
}

func poolServeCommand() *cobra.Command {
	var f poolFlags
	cmd := &cobra.Command{
		Use:   "serve POOL SNAPSHOT [flags]",
		Short: "Keep a pool full until SIGINT or SIGTERM; what waits goes on waiting then",
		Args:  count(2, 2),
	}
	cmd.RunE = runtimeVerbWith(func(*firecracker.Options) {}, func(ctx context.Context, rt *microvm.Runtime, args []string) error {
		pool, err := f.open(ctx, rt, args[0], args[1])
		if err != nil {
			return err
		}
		fmt.Println(pool.Status().Ready)
		<-ctx.Done()
		return errors.Join(context.Cause(ctx), pool.Close())
	})
	f.add(cmd)
	return cmd
}

func poolTakeCommand() *cobra.Command {
	var o microvm.ClaimOptions
	var env []string
	var evidence bool
	cmd := &cobra.Command{
		Use:   "take POOL NAME [flags]",
		Short: "Hand out a machine that waits in a pool, under a name of its own",
		Args:  count(2, 2),
	}
	cmd.RunE = runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) (err error) {
		if o.Env, err = pairs(env); err != nil {
			return err
		}
		vm, made, err := takeHeld(ctx, rt, args[0], args[1], &o)
		if err != nil {
			return err
		}
		if evidence {
			return printJSON(made)
		}
		fmt.Println(vm.UID())
		return nil
	})
	cmd.Flags().StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE of every command in it, repeatable")
	cmd.Flags().StringVar(&o.Hostname, "hostname", "", "of the guest; otherwise the machine's name")
	cmd.Flags().BoolVar(&evidence, "evidence", false, "print what was done to make the machine its own as JSON")
	return cmd
}

// takeHeld claims one of the machines that wait in a pool: others may be faster with some.
func takeHeld(ctx context.Context, rt *microvm.Runtime, pool, name string, o *microvm.ClaimOptions) (*microvm.VM, microvm.Evidence, error) {
	held, err := heldIn(ctx, rt, pool)
	if err != nil {
		return nil, nil, err
	}
	for _, info := range held {
		vm, evidence, err := rt.Claim(ctx, info.Name, name, o)
		if !errors.Is(err, microvm.ErrNotFound) && !errors.Is(err, microvm.ErrState) {
			return vm, evidence, err
		}
	}
	return nil, nil, fmt.Errorf("%w: no machine waits in pool %q (microvm pool fill)", microvm.ErrExhausted, pool)
}

// heldIn returns the machines that wait in a pool, the oldest first.
func heldIn(ctx context.Context, rt *microvm.Runtime, pool string) ([]microvm.Info, error) {
	infos, err := rt.List(ctx, &microvm.Filter{Labels: map[string]string{warmpool.Label: pool}})
	infos = slices.DeleteFunc(infos, func(info microvm.Info) bool { return !warmpool.Waits(&info, pool) })
	slices.SortFunc(infos, func(a, b microvm.Info) int { return a.Created.Compare(b.Created) })
	return infos, err
}

// pooled is a line of pool ls.
type pooled struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"` // Uid.
	Ready    int    `json:"ready"`
}

func poolListCommand() *cobra.Command {
	return labelled("pools", func(ctx context.Context, rt *microvm.Runtime, labels map[string]string) ([]pooled, error) {
		infos, err := rt.List(ctx, &microvm.Filter{Labels: labels})
		return poolsOf(infos), err
	}, printPools)
}

func poolsOf(infos []microvm.Info) []pooled {
	ready := map[pooled]int{}
	for _, info := range infos {
		if info.Held {
			ready[pooled{Name: info.Spec.Labels[warmpool.Label], Snapshot: info.Spec.Labels[warmpool.SnapshotLabel]}]++
		}
	}
	pools := []pooled{}
	for p, n := range ready {
		p.Ready = n
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b pooled) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Snapshot, b.Snapshot))
	})
	return pools
}

func printPools(pools []pooled) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSNAPSHOT\tREADY")
	for _, p := range pools {
		fmt.Fprintf(w, "%s\t%s\t%d\n", p.Name, p.Snapshot, p.Ready)
	}
	return w.Flush()
}

func poolDrainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drain POOL",
		Short: "Discard the machines that wait in a pool; who serves it makes others",
		Args:  count(1, 1),
		RunE: runtimeVerb(func(ctx context.Context, rt *microvm.Runtime, args []string) error {
			held, err := heldIn(ctx, rt, args[0])
			if err != nil {
				return err
			}
			discarded := 0
			for _, info := range held {
				err := rt.Discard(ctx, info.Name)
				if errors.Is(err, microvm.ErrNotFound) || errors.Is(err, microvm.ErrState) { // somebody has it
					continue
				}
				if err != nil {
					return err
				}
				discarded++
			}
			fmt.Println(discarded)
			return nil
		}),
	}
}
