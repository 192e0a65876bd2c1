//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tangle-network/microvm-runtime/image"
)

func imageImportCommand() *cobra.Command {
	var o image.ImportOptions
	var config configFlags
	cmd := &cobra.Command{
		Use:     "import [flags] PATH [NAME]",
		Aliases: []string{"load"},
		Short:   "Make an image of an OCI layout, of what docker save wrote, or of a root file system (tar, - for standard input, or directory); print its digest",
		Args:    count(1, 2),
		RunE: addImageVerb(func(ctx context.Context, store *image.Store, args []string) (err error) {
			if o.Config, err = config.make(); err != nil {
				return err
			}
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			if args[0] == "-" {
				args[0] = "/dev/stdin"
			}
			return importImage(ctx, store, args[0], name, o)
		}),
	}
	cmd.Flags().StringVar((*string)(&o.Format), "format", "", "oci, docker, tar or dir (default what it looks like)")
	cmd.Flags().StringVar(&o.Select, "select", "", "name or tag of one image where PATH has several")
	cmd.Flags().StringVar(&o.Platform, "platform", "", "such as linux/arm64 (default this host's)")
	config.add(cmd.Flags())
	return cmd
}

func imageBuildCommand() *cobra.Command {
	o := image.ImportOptions{Format: image.FormatDirectory}
	var config configFlags
	cmd := &cobra.Command{
		Use:   "build [flags] DIR NAME",
		Short: "Make an image of a directory with a root file system; print its digest",
		Args:  count(2, 2),
		RunE: addImageVerb(func(ctx context.Context, store *image.Store, args []string) (err error) {
			if o.Config, err = config.make(); err != nil {
				return err
			}
			return importImage(ctx, store, args[0], args[1], o)
		}),
	}
	cmd.Flags().StringVar(&o.Platform, "platform", "", "such as linux/arm64 (default this host's)")
	config.add(cmd.Flags())
	return cmd
}

func importImage(ctx context.Context, store *image.Store, path, name string, o image.ImportOptions) error {
	return withProgress(func(progress func(image.Progress)) error {
		o.Progress = progress
		i, err := store.Import(ctx, path, name, &o)
		return printDigest(i, err)
	})
}

// configFlags are the flags that say what to run in a root file system; import and build share them.
type configFlags struct {
	config          image.Config
	entrypoint, cmd string
	labels          []string
}

func (f *configFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.entrypoint, "entrypoint", "", `what every command is an argument of: a JSON list of words, or a line for /bin/sh -c`)
	flags.StringVar(&f.cmd, "cmd", "", `the default command: a JSON list of words, or a line for /bin/sh -c`)
	flags.StringArrayVarP(&f.config.Env, "env", "e", nil, "KEY=VALUE, repeatable")
	flags.StringVarP(&f.config.WorkingDir, "workdir", "w", "", "working directory")
	flags.StringVarP(&f.config.User, "user", "u", "", "user, or user:group, by name or number")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "KEY=VALUE, repeatable")
}

// make returns the configuration, nil when no flag says anything.
func (f *configFlags) make() (*image.Config, error) {
	c := f.config
	if _, err := pairs(c.Env); err != nil {
		return nil, err
	}
	var err error
	if c.Labels, err = pairs(f.labels); err != nil {
		return nil, err
	}
	if c.Entrypoint, err = words(f.entrypoint); err != nil {
		return nil, err
	}
	if c.Cmd, err = words(f.cmd); err != nil {
		return nil, err
	}
	if reflect.ValueOf(c).IsZero() {
		return nil, nil
	}
	return &c, nil
}

// words parses a command as a Dockerfile has it.
func words(text string) (list []string, err error) {
	if text == "" {
		return nil, nil
	}
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return []string{"/bin/sh", "-c", text}, nil
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, usageError{fmt.Errorf("%q is no JSON list of words: %w", text, err)}
	}
	return list, nil
}
