// Package guest executes commands in a microVM and copies files, through the agent that boots its image.
//
//	out, err := guest.Command(vm, "python3", "-c", "print(6*7)").Output(ctx)
//
// There are only two types to begin with: a [Cmd], which is like exec.Cmd, and an [ExitError]. A *microvm.VM is all that they need: whatever can [Dialer.Dial].
// [Attach] makes a Cmd for a command that runs already, and [List] tells which there are: each is a [Process].
//
// # Commands and their callers
//
// A context bounds the call and, for a Cmd, the command: when it ends the command is killed. The end of this process ends no command: another may Attach to it by its
// Cmd.ID, and go on from where the caller's writers were (Cmd.Offsets). A command that is Detached has no caller from the start.
//
// With Cmd.TTY a command has a terminal, for shells and editors; [Cmd.Resize] tells it the size of its window.
//
// # Beside commands
//
// [DialTCP] and [Forward] reach what listens in the guest, [Listen] and [ForwardBack] let it reach the host, without a network. [SetEnv] and [SetSecret] give commands what
// they are to know. [SetClock], [AddEntropy] and [SetHostname] are for machines that were restored.
//
// # Events
//
// [Watch] tells what happens to a file of the guest or in a directory, and [Events] what happens to its system: processes that its kernel kills for want of memory, and a disk that fills up.
//
// # Files
//
// [CopyTo] and [CopyFrom] copy files and trees as cp -a does; [ReadTar] and [WriteTar] are the streams below them, and [ReadFile], [WriteFile] and [Stat] are for one file. [FS] is a
// directory of the guest for whatever reads an fs.FS. The host trusts
// nothing that a guest sends: CopyFrom writes below its destination and nowhere else, and no more than CopyOptions.MaxBytes.
//
// # Caveats
//
// CopyTo and CopyFrom go on after a connection that breaks, where the side is that takes the files; a [ReadTar] or WriteTar does not. A copy that ended is a [CopyError] that says how far it came:
// CopyOptions.Resume goes on with it. Times of symbolic links are not kept, and holes are
// filled. A path through an absolute symbolic link in a WriteTar's directory is refused, also where the link does not lead out.
//
// A command's connection that breaks, as all do when the machine is snapshotted, is made again where it was: the command goes on, and no byte is lost or doubled.
//
// The agent keeps at most 256 KiB of each output that no caller's writer has. A command that writes more waits.
//
// One caller at a time is attached to a command: a later one takes its place.
//
// A Cmd whose Stdin never ends leaves the goroutine that reads it behind when the command ends, as no Read can be interrupted.
//
// What a newer agent can do and an older lacks is microvm.ErrUnsupported, before anything is started.
package guest
