/* Makes each step of generation wait: an evaluation callback of ggml, whose user data are microseconds. */
int usleep(unsigned int microseconds);
int strcmp(const char *left, const char *right);
const char *(*name_of)(const void *tensor);

_Bool pace(const void *tensor, _Bool ask, void *microseconds)
{
    if (ask && strcmp(name_of(tensor), "result_output") == 0)
        usleep((unsigned int)(unsigned long)microseconds);
    return 0;
}
