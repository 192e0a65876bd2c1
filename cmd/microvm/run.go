//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/image"
)

// cleanUpPatience bounds the removal of the machine once the caller's own context may have ended.
const cleanUpPatience = 30 * time.Second

// runFlags are the flags of run beside those of the machine and of the command in it.
type runFlags struct {
	spec        specFlags
	exec        execFlags
	volumeTexts []string
	volumes     []volume // of those, once they are checked
	name, pull  string
	keep        bool
	remove      bool
	entrypoint  string
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [COMMAND [ARG...]]",
		Short: "Create a machine of an image, execute a command in it, destroy it; exit with the command's status",
		Long: "run creates a machine of an image, executes a command in it, destroys it, and exits with the command's status.\n\n" +
			"IMAGE is a name, such as debian:12, or a path that begins with / or ./. With --image, --rootfs or --diskless there is no IMAGE: all arguments are the command. " +
			"Without a COMMAND the image's own is executed, with its environment, user and directory.\n\n" +
			"A --volume is a copy, made before the command: what the command changes does not come back, but with :out, which copies DST over SRC after the command, whatever its status is, and removes nothing there.",
		Args: count(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			args, err := f.takeImage(cmd.Context(), args)
			if err != nil {
				return err
			}
			tell := func(o *firecracker.Options) { o.TellNames = true } // who runs a command is told which names it was denied
			return runtimeVerbWith(tell, f.run)(cmd, args)
		},
	}
	f.spec.add(cmd.Flags())
	f.exec.add(cmd)
	cmd.Flags().StringVar(&f.name, "name", "", "the machine's name (default run-TIME)")
	cmd.Flags().StringArrayVarP(&f.volumeTexts, "volume", "v", nil, volumeUsage)
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the machine, whatever happens; --detach leaves it when the command has started")
	cmd.Flags().BoolVar(&f.remove, "rm", false, "destroy the machine afterwards: what happens anyway, without --keep")
	cmd.Flags().StringVar(&f.pull, "pull", "missing", "get the image from its registry: missing, always or never")
	cmd.Flags().StringVar(&f.entrypoint, "entrypoint", "", "a program in place of the image's entry point")
	return cmd
}

// check refuses what can't be, before an image is got or a machine made.
func (f *runFlags) check() (err error) {
	if f.volumes, err = parseVolumes(f.volumeTexts); err != nil {
		return err
	}
	switch back := slices.ContainsFunc(f.volumes, func(v volume) bool { return v.back }); {
	case !slices.Contains([]string{"missing", "always", "never"}, f.pull):
		return usageError{fmt.Errorf("--pull is missing, always or never, not %q", f.pull)}
	case f.remove && (f.keep || f.exec.detach):
		return usageError{errors.New("--rm and --keep, or --detach, exclude each other: nobody would be there to destroy the machine")}
	case f.exec.detach && back:
		return usageError{errors.New("--detach and a --volume with :out exclude each other: nobody would be there to copy it back")}
	}
	for _, v := range f.volumes {
		if _, err := os.Stat(v.host); err != nil {
			return err
		}
	}
	return f.exec.check()
}

// takeImage takes the image off the arguments, unless a flag says what to boot, and gets it where it is missing.
func (f *runFlags) takeImage(ctx context.Context, args []string) ([]string, error) {
	if f.spec.spec.Image == "" && f.spec.spec.Rootfs == "" && !f.spec.spec.Diskless {
		f.spec.spec.Image, args = args[0], args[1:]
	}
	name := f.spec.spec.Image
	if name == "" || looksLikePath(name) || f.pull == "never" {
		return args, nil
	}
	return args, f.getImage(ctx, name)
}

// getImage gets the image from its registry, where it is missing or is always asked for.
func (f *runFlags) getImage(ctx context.Context, name string) error {
	return withImages(true, func(store *image.Store) error {
		_, err := store.Get(name)
		if err == nil && f.pull == "missing" || err != nil && !errors.Is(err, microvm.ErrNotFound) {
			return err
		}
		return withProgress(func(progress func(image.Progress)) error {
			_, err := store.Pull(ctx, name, &image.PullOptions{Progress: progress})
			return err
		})
	})
}

// run creates, executes and destroys.
func (f *runFlags) run(ctx context.Context, rt *microvm.Runtime, args []string) (err error) {
	spec, err := f.spec.make()
	if err != nil {
		return err
	}
	if f.name == "" {
		f.name = "run-" + strings.ReplaceAll(time.Now().UTC().Format("20060102-150405.000000"), ".", "-")
	}
	vm, err := rt.Create(ctx, f.name, spec)
	if err != nil {
		return err
	}
	defer func() {
		if !f.keep && (err != nil || !f.exec.detach) {
			err = errors.Join(err, destroyLate(ctx, vm))
		}
	}()
	if err := hasAgent(ctx, vm, "execute in"); err != nil {
		return err
	}
	info, err := vm.Info(ctx)
	if err != nil {
		return err
	}
	if args = f.command(info.Image, args); len(args) == 0 {
		return usageError{fmt.Errorf("image %s says no command to execute: give one", spec.Image)}
	}
	if err := vm.Start(ctx, nil); err != nil {
		return err
	}
	return f.execute(ctx, vm, args)
}

// execute executes between the volumes' ways in and back. Who leaves the command is told the machine's name too: both are what attach takes.
func (f *runFlags) execute(ctx context.Context, vm *microvm.VM, args []string) error {
	if f.exec.detach {
		f.exec.machine = f.name
	}
	for _, v := range f.volumes {
		if err := v.put(ctx, vm); err != nil {
			return err
		}
	}
	err := f.exec.run(ctx, vm, args)
	if !f.exec.detach {
		tellDenied(ctx, vm)
	}
	for _, v := range f.volumes {
		if v.back && ctx.Err() == nil {
			err = errors.Join(err, v.get(ctx, vm))
		}
	}
	return err
}

// command returns what to execute: the entry point, with the caller's arguments or, without any, the image's. The image's environment, user and directory hold where the caller says
// nothing else.
func (f *runFlags) command(config *microvm.ImageConfig, args []string) []string {
	if config == nil {
		config = &microvm.ImageConfig{}
	}
	f.exec.env = slices.Concat(config.Env, f.exec.env)
	if f.exec.user == "" {
		f.exec.user = config.User
	}
	if f.exec.dir == "" {
		f.exec.dir = config.WorkingDir
	}
	if f.entrypoint != "" {
		return slices.Concat([]string{f.entrypoint}, args)
	}
	if len(args) == 0 {
		args = config.Cmd
	}
	return slices.Concat(config.Entrypoint, args)
}

// destroyLate destroys a machine also when ctx was interrupted.
func destroyLate(ctx context.Context, vm *microvm.VM) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpPatience)
	defer cancel()
	return vm.Destroy(ctx)
}
