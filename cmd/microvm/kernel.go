//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/kernels"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/kernel"
)

func kernelCommand() *cobra.Command {
	return group("kernel", "Prepare kernels that machines may name, and say what they lack", kernelListCommand(), kernelCheckCommand(), kernelFetchCommand(), kernelImportCommand(), kernelRemoveCommand())
}

// kernelDir returns the directory of kernels of the environment's state directory.
func kernelDir() (kernels.Dir, error) {
	options, err := firecracker.OptionsFromEnv(os.LookupEnv)
	return kernels.Dir(filepath.Join(options.Defaults().StateDir, "kernels")), err
}

// claimKernels is kernelDir for who adds to it: the state directory is there then, and known to be one.
func claimKernels() (kernels.Dir, error) {
	rt, err := firecracker.FromEnv()
	if err != nil {
		return "", err
	}
	if err := rt.Close(); err != nil {
		return "", err
	}
	return kernelDir()
}

func kernelListCommand() *cobra.Command {
	return listing("the kernels", func(*cobra.Command) ([]kernels.Kernel, error) {
		dir, err := kernelDir()
		if err != nil {
			return nil, err
		}
		return dir.List()
	}, printKernels)
}

func printKernels(all []kernels.Kernel) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRELEASE\tMIB\tMODULES\tVERDICT")
	for _, k := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", k.Name, k.Release, (k.Size+1<<20-1)>>20, k.Modules, verdict(k))
	}
	return w.Flush()
}

// verdict counts what a kernel lacks.
func verdict(k kernels.Kernel) string {
	if !k.Checked {
		return "not checked: its configuration is not known"
	}
	counts := map[kernel.Severity]int{}
	for _, finding := range k.Findings {
		counts[finding.Severity]++
	}
	var parts []string
	for _, severity := range []kernel.Severity{kernel.SeverityError, kernel.SeverityWarning, kernel.SeverityNote} {
		if n := counts[severity]; n == 1 {
			parts = append(parts, fmt.Sprintf("1 %s", severity))
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %ss", n, severity))
		}
	}
	if len(parts) == 0 {
		return "good"
	}
	return strings.Join(parts, ", ")
}

func kernelCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [--json] NAME|PATH",
		Short: "Say what a kernel was configured without, and what that costs; exit with 1 when machines can't use it",
		Long:  "check looks at a kernel that `microvm kernel` has, or at a file: a vmlinux, a vmlinuz, a Debian package, or a configuration.",
		Args:  count(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			findings, err := check(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(append([]kernel.Finding{}, findings...)) // none is [] too
			} else {
				printFindings(findings)
			}
			if err == nil && kernel.Worst(findings) == kernel.SeverityError {
				return status(1)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func check(text string) ([]kernel.Finding, error) {
	if !isName(text) {
		return kernels.Check(text)
	}
	dir, err := kernelDir()
	if err != nil {
		return nil, err
	}
	k, err := dir.Get(text)
	if err == nil && !k.Checked {
		err = fmt.Errorf("kernel %s: its configuration is not known (import it with --config)", k.Name)
	}
	return k.Findings, err
}

func printFindings(findings []kernel.Finding) {
	for _, f := range findings {
		fmt.Printf("%-8s %s is missing: %s\n", f.Severity, f.Option, f.Cost)
	}
	if len(findings) == 0 {
		fmt.Println("nothing is missing")
	}
}

func kernelImportCommand() *cobra.Command {
	var name string
	var source kernels.Source
	cmd := &cobra.Command{
		Use:   "import [flags] PATH",
		Short: "Prepare a kernel that machines may name, of a vmlinux, a vmlinuz or a Debian package; print its name",
		Args:  count(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			source.Image = args[0]
			dir, err := claimKernels()
			if err != nil {
				return err
			}
			return importKernel(cmd.Context(), dir, name, source)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the kernel's name (default its release)")
	cmd.Flags().StringVar(&source.Modules, "modules", "", "its modules: lib/modules/RELEASE (default the package's, or where distributions have them)")
	cmd.Flags().StringVar(&source.Config, "config", "", "its configuration (default the package's, the one beside it, or the one built in)")
	return cmd
}

// importKernel prepares a kernel, prints its name, and says what it lacks.
func importKernel(ctx context.Context, dir kernels.Dir, name string, source kernels.Source) error {
	k, err := dir.Import(ctx, name, source)
	if err != nil {
		return err
	}
	fmt.Println(k.Name)
	if k.Modules == 0 {
		fmt.Fprintln(os.Stderr, "microvm: it has no modules (fine when all is built in; else give --modules)")
	}
	if k.Checked && len(k.Findings) > 0 {
		fmt.Fprintf(os.Stderr, "microvm: it lacks something: %s (microvm kernel check %s)\n", verdict(k), k.Name)
	}
	return nil
}

func kernelFetchCommand() *cobra.Command {
	var name, sum string
	var source kernels.Source
	cmd := &cobra.Command{
		Use:   "fetch [flags] [PACKAGE|URL]",
		Short: "Get a kernel and prepare it: a package of the distribution, or a release by its URL and sha256; print its name",
		Long: "fetch gets a kernel and prepares it, as import does with one that is here.\n\n" +
			"A PACKAGE is one of the distribution's, which apt checks, such as linux-image-amd64 or linux-image-6.1.0-56-cloud-amd64-unsigned; without it, its kernel for virtual machines. A URL leads " +
			"to a vmlinux, a vmlinuz or a Debian package, such as one of Firecracker's releases, and --sha256 says what is there.",
		Args: count(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := claimKernels()
			if err != nil {
				return err
			}
			temp, err := os.MkdirTemp("", "microvm-kernel-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(temp)
			if source.Image, err = setup.FetchKernel(cmd.Context(), temp, strings.Join(args, ""), sum, os.Stderr); err != nil {
				return fmt.Errorf("fetch a kernel: %w", err)
			}
			return importKernel(cmd.Context(), dir, name, source)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the kernel's name (default its release)")
	cmd.Flags().StringVar(&sum, "sha256", "", "what a URL leads to, in 64 hexadecimal digits")
	cmd.Flags().StringVar(&source.Modules, "modules", "", "its modules: lib/modules/RELEASE (default the package's)")
	cmd.Flags().StringVar(&source.Config, "config", "", "its configuration (default the package's, or the one built in)")
	return cmd
}

func kernelRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove kernels; machines that were made with one keep theirs",
		Args:  count(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := kernelDir()
			if err != nil {
				return err
			}
			return each(args, "", func(name string) error { return dir.Remove(cmd.Context(), name) })
		},
	}
}
