//go:build linux

// Command labrun runs a static program in the lab: labrun [-file NAME=PATH]... PROGRAM [ARG...].
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
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
	err = lab.Run(ctx, lab.Options{
		Parts: parts, Files: files, Log: log,
		Jobs: []lab.Job{{Name: args[0], Program: args[0], Args: args[1:], Timeout: timeout}},
		Event: func(e lab.Event) {
			os.Stdout.Write(e.Data)
			if e.Exit != nil {
				code = *e.Exit
			}
			if e.Boot != "" {
				fmt.Fprintf(os.Stderr, "lab: up after %s s of its own clock\n", e.Boot)
			}
		},
	})
	return code, err
}
