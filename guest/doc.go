// Package guest executes commands in a microVM, through the agent that boots its image.
//
//	out, err := guest.Command(vm, "python3", "-c", "print(6*7)").Output(ctx)
//
// There are only two types: a [Cmd], which is like exec.Cmd, and an [ExitError]. A *microvm.VM is all that they need: whatever can [Dialer.Dial].
//
// # Caveats
//
// A context bounds the call and, for a Cmd, the command: when it ends the command is killed.
//
// A connection that breaks, as all do when the machine is snapshotted, is made again where it was: the command goes on, and no byte is lost or doubled.
//
// A Cmd whose Stdin never ends leaves the goroutine that reads it behind when the command ends, as no Read can be interrupted.
package guest
