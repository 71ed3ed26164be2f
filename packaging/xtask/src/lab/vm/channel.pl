# Runs the scripts that come through a virtio serial port: eight hexadecimal digits of length, then
# the script. Answers with the exit status and the length of the output, in digits too, and the
# output.
use strict;
use warnings;
open my $port, '+<:raw', '/dev/virtio-ports/lab' or die "port: $!";
sub get {
    my ($want) = @_;
    my $all = '';
    while (length($all) < $want) {
        my $got = sysread $port, $all, $want - length($all), length($all);
        # Nobody is connected yet.
        select undef, undef, undef, 0.1 if !$got;
    }
    return $all;
}
while (1) {
    my $script = get(hex get(8));
    open my $file, '>:raw', '/run/lab-script' or die;
    print $file $script;
    close $file;
    my $output = `sh /run/lab-script 2>&1 </dev/null`;
    my $answer = sprintf('%08x%08x', ($? >> 8) | ($? & 127), length $output) . $output;
    my $at = 0;
    while ($at < length $answer) {
        my $sent = syswrite $port, $answer, length($answer) - $at, $at;
        $at += $sent if $sent;
    }
}
