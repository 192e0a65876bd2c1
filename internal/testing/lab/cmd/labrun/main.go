//go:build linux

// Command labrun runs a static program where real microVMs run: on this machine when it virtualises, else in the lab. labrun [-file NAME=PATH]... PROGRAM [ARG...].
//
// The program gets the parts in its environment, as firecracker.OptionsFromEnv reads them, and $MICROVM_CACHE.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/doctor"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

func main() {
	files := map[string]string{}
	flag.Func("file", "NAME=PATH: a file below "+lab.Payload+", repeatable", func(text string) error {
		name, path, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PATH", text)
		}
		files[name] = path
		return nil
	})
	timeout := flag.Duration("timeout", 5*time.Minute, "kill the program after this long")
	log := flag.String("log", "", "path for the console of the lab's kernel")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, files, *timeout, *log, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 125
	}
	os.Exit(code)
}

func run(ctx context.Context, files map[string]string, timeout time.Duration, log string, args []string) (code int, err error) {
	if len(args) == 0 {
		return 2, fmt.Errorf("usage: labrun [flags] PROGRAM [ARG...]")
	}
	cache, err := setup.DefaultCache()
	if err != nil {
		return 0, err
	}
	parts, err := setup.Find(cache)
	if err != nil {
		return 0, err
	}
	if doctor.ProbeKVM().RunsLinux() {
		return native(ctx, parts, timeout, args)
	}
	maps.Copy(files, lab.Binaries(parts))
	err = lab.Run(ctx, lab.Options{
		Parts: parts, Files: files, Log: log,
		Jobs: []lab.Job{{Name: args[0], Program: args[0], Args: args[1:], Timeout: timeout, Env: lab.Environment(lab.Inside(parts))}},
		Event: func(e lab.Event) {
			os.Stdout.Write(e.Data)
			if e.Exit != nil {
				code = *e.Exit
			}
			if e.Halt != "" {
				fmt.Fprintln(os.Stderr, "lab:", e.Halt)
			}
			if e.Boot != "" {
				fmt.Fprintf(os.Stderr, "lab: up after %s s of its own clock\n", e.Boot)
			}
		},
	})
	return code, err
}

// native runs the program here.
func native(ctx context.Context, parts setup.Parts, timeout time.Duration, args []string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), lab.Environment(parts)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState != nil && ctx.Err() == nil {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 0, err
}
